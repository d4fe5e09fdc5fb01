import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.seal import SealBroken, Sealer, bind, key_id_of, new_key

KEY = bytes(range(32))


@given(st.binary(max_size=200), st.binary(max_size=50))
@settings(deadline=None)
def test_what_was_sealed_opens_in_its_place(plain, aad):
    sealer = Sealer("k1", KEY)

    assert sealer.open(sealer.seal(plain, aad), aad) == plain


def test_a_flipped_bit_anywhere_is_noticed():
    sealer = Sealer("k1", KEY)
    envelope = sealer.seal(b"hello", b"place")

    for at in range(len(envelope)):
        for bit in range(8):
            altered = bytearray(envelope)
            altered[at] ^= 1 << bit
            with pytest.raises(SealBroken):
                sealer.open(bytes(altered), b"place")


def test_a_cut_at_any_byte_is_noticed():
    sealer = Sealer("k1", KEY)
    envelope = sealer.seal(b"hello", b"place")

    for end in range(len(envelope)):
        with pytest.raises(SealBroken):
            sealer.open(envelope[:end], b"place")


def test_a_ciphertext_moved_to_another_place_does_not_open():
    sealer = Sealer("k1", KEY)
    envelope = sealer.seal(b"hello", bind("team-a", "record", 1))

    with pytest.raises(SealBroken):
        sealer.open(envelope, bind("team-b", "record", 1))


def test_another_key_of_the_same_id_does_not_open_it():
    envelope = Sealer("k1", KEY).seal(b"hello", b"")

    with pytest.raises(SealBroken):
        Sealer("k1", new_key()).open(envelope, b"")


def test_the_key_id_is_readable_and_bound():
    envelope = Sealer("k1", KEY).seal(b"hello", b"")

    assert key_id_of(envelope) == "k1"
    with pytest.raises(SealBroken, match="another key"):
        Sealer("k2", KEY).open(envelope, b"")


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
@settings(deadline=None)
def test_different_places_never_bind_to_the_same_bytes(one, other):
    assert (bind(*one) == bind(*other)) == (one == other)


def test_sealing_twice_gives_different_bytes():
    sealer = Sealer("k1", KEY)

    assert len({sealer.seal(b"same", b"") for _ in range(1000)}) == 1000


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\x02\x01a", b"\x01\x02\xff\xff"])
def test_an_envelope_that_is_none_is_refused(garbage):
    with pytest.raises(SealBroken):
        key_id_of(garbage)


def test_a_sealer_does_not_print_its_key():
    assert KEY.hex() not in repr(Sealer("k1", KEY))
    assert "***" in repr(Sealer("k1", KEY))


def test_a_key_without_an_id_is_refused():
    with pytest.raises(ValueError, match="1 to 255"):
        Sealer("", KEY)
