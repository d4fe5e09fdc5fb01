import hmac
import string
from hashlib import sha256

import rich.pretty
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pilothouse.domain import apikey

PEPPER = b"p" * 32
ids = st.binary(min_size=apikey.ID_BYTES, max_size=apikey.ID_BYTES).map(apikey.encode)
secrets = st.binary(min_size=apikey.SECRET_BYTES, max_size=apikey.SECRET_BYTES).map(apikey.encode)


def verifies(token: str, key_id: str, secret: str) -> bool:
    parsed = apikey.parse(token)
    if parsed is None or parsed.id != key_id:
        return False
    expected = apikey.mac(PEPPER, key_id, secret)
    return hmac.compare_digest(apikey.mac(PEPPER, parsed.id, parsed.secret), expected)


@given(ids, secrets)
@settings(deadline=None)
def test_a_made_key_parses_into_its_parts_and_verifies(key_id: str, secret: str):
    token = apikey.make(key_id, secret)

    assert apikey.parse(token) == apikey.ParsedKey(key_id, secret)
    assert verifies(token, key_id, secret)


def test_no_key_with_one_character_changed_parses():
    token = apikey.make(apikey.encode(b"\x01\x80" * 4), apikey.encode(bytes(range(32))))

    for place in range(len(token)):
        for other in string.printable + "\x00é":
            mutated = token[:place] + other + token[place + 1 :]
            assert (apikey.parse(mutated) is None) == (mutated != token), (place, other)


@given(ids, secrets, st.data())
@settings(deadline=None)
def test_no_inserted_or_missing_character_verifies(key_id: str, secret: str, data: st.DataObject):
    token = apikey.make(key_id, secret)
    place = data.draw(st.integers(0, len(token) - 1))
    added = data.draw(st.sampled_from(string.ascii_letters + string.digits + "_\n\x00"))

    assert not verifies(token[:place] + token[place + 1 :], key_id, secret)
    assert not verifies(token[:place] + added + token[place:], key_id, secret)


@given(st.text())
@example("")
@example("ph_" + "a" * 1_000_000)
@example("ph_abcdefgh_' OR 1=1 --_00000000")
@example("ph_abcdefgh_" + "a" * 31 + "\x00_00000000")
@example(apikey.make("abcdefgh", "a" * 40) + "\n")
@example(apikey.make("abcdefgh", "a" * 40).replace("a", "\uff41"))
@example(apikey.make("abcdefgh", "a" * 40)[:-1] + "\u0663")
@example("\ud800")
@settings(deadline=None)
def test_text_that_is_no_key_is_none_and_raises_nothing(text: str):
    assert apikey.parse(text) is None


def test_another_pepper_gives_another_mac():
    assert apikey.mac(b"a" * 32, "abcdefgh", "s" * 40) != apikey.mac(b"b" * 32, "abcdefgh", "s" * 40)


def test_the_mac_is_bound_to_the_id():
    assert apikey.mac(PEPPER, "abcdefgh", "s" * 40) != apikey.mac(PEPPER, "abcdefgi", "s" * 40)


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
@settings(deadline=None)
def test_encoding_keeps_every_bit(one: bytes, other: bytes):
    assert (apikey.encode(one) == apikey.encode(other)) == (one == other)
    assert len(apikey.encode(one)) == 13


def test_a_parsed_key_never_shows_its_secret():
    parsed = apikey.ParsedKey("abcdefgh", "topsecret")

    assert "topsecret" not in f"{parsed} {parsed!r} {rich.pretty.pretty_repr(parsed)}"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=17, max_size=253))
@settings(deadline=None)
def test_a_key_of_another_gateway_is_found_by_its_sha256_and_never_reads_as_ours(rest: str):
    token = f"sk-{rest}"
    parsed = apikey.parse(token)

    assert parsed == apikey.carried(sha256(token.encode()).hexdigest())
    assert parsed is not None
    assert apikey.parse(apikey.make(parsed.id, parsed.secret)) is None


def test_what_is_too_short_to_be_a_secret_is_no_key():
    assert apikey.parse("sk-1234") is None
    assert apikey.parse("sk-" + "a" * 16) is None
    assert apikey.parse("sk-" + "a" * 254) is None
    assert apikey.parse("sk-" + "a" * 20 + " b") is None
