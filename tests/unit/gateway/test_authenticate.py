"""Who asks is known without I/O, and nobody is known by mistake."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_rig import ADMIN, DEVELOPER, EXPIRED, KEYS, PEPPER, SECRET, UNKNOWN, key, key_entry
from pilothouse.domain import apikey
from pilothouse.domain.errors import EngineUnavailable, InvalidApiKey
from pilothouse.domain.snapshot import Snapshot
from pilothouse.gateway.authenticate import Authenticator


@pytest.fixture
def door() -> Authenticator:
    made = Authenticator(PEPPER)
    made.use(Snapshot(revision=1, keys=KEYS))
    return made


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": f"Bearer {key(DEVELOPER)}".encode()},
        {b"authorization": f"bearer   {key(DEVELOPER)} ".encode()},
        {b"x-api-key": key(DEVELOPER).encode()},
        {b"authorization": key(DEVELOPER).encode()},
    ],
    ids=["bearer", "lower case and spaces", "x-api-key", "without a scheme"],
)
def test_a_key_is_known_however_it_is_sent(door, headers):
    principal = door.authenticate(headers)

    assert (principal.key_id, principal.team, principal.role) == (DEVELOPER, "a", "developer")


@pytest.mark.parametrize(
    "presented",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic " + key(DEVELOPER).encode(),
        b"Bearer " + key(UNKNOWN).encode(),
        b"Bearer " + apikey.make(DEVELOPER, "T" * 32).encode(),
        b"Bearer " + key(DEVELOPER)[:-1].encode() + b"x",
        b"Bearer " + key(DEVELOPER).upper().encode(),
        b"Bearer " + key(DEVELOPER).encode() + b", Bearer " + key(DEVELOPER).encode(),
        b"Bearer ph_' OR 1=1 --_x_y",
        b"Bearer \xff\xfe",
        b"Bearer " + b"x" * 10_000,
    ],
)
def test_anything_else_is_nobody(door, presented):
    with pytest.raises(InvalidApiKey) as caught:
        door.authenticate({b"authorization": presented})

    assert SECRET not in caught.value.message


def test_no_key_is_nobody(door):
    with pytest.raises(InvalidApiKey):
        door.authenticate({})


def test_an_expired_key_is_nobody_and_says_so(door):
    with pytest.raises(InvalidApiKey, match="expired"):
        door.authenticate({b"authorization": f"Bearer {key(EXPIRED)}".encode()})


def test_a_key_that_expires_while_it_is_known_is_nobody_from_then_on(door, monkeypatch):
    soon = time.time() + 100
    door.use(Snapshot(revision=2, keys={DEVELOPER: key_entry(DEVELOPER, expires_at=soon)}))
    headers = {b"authorization": f"Bearer {key(DEVELOPER)}".encode()}
    door.authenticate(headers)

    monkeypatch.setattr(time, "time", lambda: soon)

    with pytest.raises(InvalidApiKey, match="expired"):
        door.authenticate(headers)


def test_a_revoked_key_is_nobody_as_soon_as_the_snapshot_is_there(door):
    headers = {b"authorization": f"Bearer {key(DEVELOPER)}".encode()}
    door.authenticate(headers)

    door.use(Snapshot(revision=2, keys={ADMIN: KEYS[ADMIN]}))

    with pytest.raises(InvalidApiKey):
        door.authenticate(headers)


def test_a_changed_role_counts_as_soon_as_the_snapshot_is_there(door):
    headers = {b"authorization": f"Bearer {key(DEVELOPER)}".encode()}
    door.authenticate(headers)

    door.use(Snapshot(revision=2, keys={DEVELOPER: key_entry(DEVELOPER, role="auditor")}))

    assert door.authenticate(headers).role == "auditor"


def test_without_a_snapshot_it_is_not_the_keys_fault():
    with pytest.raises(EngineUnavailable) as caught:
        Authenticator(PEPPER).authenticate({b"authorization": f"Bearer {key(DEVELOPER)}".encode()})

    assert caught.value.retry_after_s


def test_a_key_of_another_installation_is_nobody():
    other = Authenticator(b"another pepper")
    other.use(Snapshot(revision=1, keys=KEYS))

    with pytest.raises(InvalidApiKey):
        other.authenticate({b"authorization": f"Bearer {key(DEVELOPER)}".encode()})


def test_what_is_remembered_of_keys_is_bounded(door):
    for n in range(50):
        with pytest.raises(InvalidApiKey):
            door.authenticate({b"authorization": b"Bearer wrong %d" % n})

    assert not door._principals, "only keys that were verified are remembered"


@settings(deadline=None, max_examples=100)
@given(presented=st.binary(max_size=120), name=st.sampled_from([b"authorization", b"x-api-key"]))
def test_any_bytes_are_nobody(presented, name):
    door = Authenticator(PEPPER)
    door.use(Snapshot(revision=1, keys=KEYS))

    with pytest.raises(InvalidApiKey):
        door.authenticate({name: presented})


@settings(deadline=None, max_examples=100)
@given(at=st.integers(0, 52), char=st.characters(min_codepoint=33, max_codepoint=126))
def test_a_key_with_one_other_character_is_nobody(at, char):
    right = key(DEVELOPER)
    wrong = right[: at % len(right)] + char + right[at % len(right) + 1 :]
    door = Authenticator(PEPPER)
    door.use(Snapshot(revision=1, keys=KEYS))

    if wrong != right:
        with pytest.raises(InvalidApiKey):
            door.authenticate({b"authorization": b"Bearer " + wrong.encode()})


def test_the_control_plane_asks_in_the_name_of_a_key_for_a_while(door):
    until = int(time.time()) + 60
    token = apikey.delegate(PEPPER, DEVELOPER, until=until)

    principal = door.authenticate({b"authorization": b"Bearer " + token.encode()})

    assert (principal.key_id, principal.role, principal.expires_at) == (DEVELOPER, "developer", until)


@pytest.mark.parametrize(
    "token",
    [
        apikey.delegate(PEPPER, DEVELOPER, until=1),
        apikey.delegate(b"q" * 32, DEVELOPER, until=1 << 33),
        apikey.delegate(PEPPER, UNKNOWN, until=1 << 33),
        apikey.delegate(PEPPER, EXPIRED, until=1 << 33),
        apikey.delegate(PEPPER, DEVELOPER, until=1 << 33).replace(str(1 << 33), str(1 << 34)),
        apikey.delegate(PEPPER, DEVELOPER, until=1 << 33).replace(DEVELOPER, ADMIN),
        f"pb_{DEVELOPER}_{1 << 33}_{apikey.mac(PEPPER, DEVELOPER, str(1 << 33)).hex()}",
    ],
    ids=["late", "other pepper", "unknown key", "expired key", "longer", "another's", "a mac"],
)
def test_nobody_else_asks_in_the_name_of_a_key(door, token):
    with pytest.raises(InvalidApiKey):
        door.authenticate({b"authorization": b"Bearer " + token.encode()})
