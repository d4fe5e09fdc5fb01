"""A head that repeats is read once, and nobody is let in by what was true of an earlier snapshot."""

import time

import pytest

from gateway_rig import DEVELOPER, KEYS, PEPPER, Full, ListJournal, key, key_entry
from pilothouse.domain.errors import InvalidApiKey
from pilothouse.domain.snapshot import Snapshot
from pilothouse.gateway.authenticate import Authenticator
from pilothouse.gateway.caller import Caller, caller_of
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.meter import Meters
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.message import Request


class Door:
    """An authenticator, a keeper, and the requests that come to them."""

    def __init__(self) -> None:
        self.authenticator = Authenticator(PEPPER)
        self.authenticator.use(Snapshot(revision=1, keys=KEYS))
        self.keeper = Keeper(
            ListJournal(), Full, Meters(lambda _: True), subject_key=b"key", when_full="refuse",
            on_dropped=lambda: None, waits_for_disk=False, cohort=Cohort(),
        )  # fmt: skip

    def caller(self, request: Request) -> Caller:
        return caller_of(request, self.authenticator, self.keeper)


def a_request(**headers: bytes) -> Request:
    lines = {f"x-pilothouse-{name}".encode(): value for name, value in headers.items()}
    lines[b"authorization"] = b"Bearer " + key(DEVELOPER).encode()
    return Request("POST", "/v1/chat/completions", "", lines, "127.0.0.1")


def test_who_asks_again_with_the_same_head_is_who_he_was():
    door, request = Door(), a_request(subject=b"ann", priority=b"low")

    first, again = door.caller(request), door.caller(request.again())

    assert again is first
    assert (first.principal.key_id, first.priority) == (DEVELOPER, b"low")
    assert first.subject_hash == door.keeper.subject_hash("a", "ann")


def test_another_head_is_read_by_itself():
    door = Door()

    ann, nobody = door.caller(a_request(subject=b"ann")), door.caller(a_request())

    assert ann.subject_hash != ""
    assert (nobody.subject_hash, nobody.priority) == ("", None)


def test_a_key_that_was_revoked_does_not_live_on_in_a_head():
    door, request = Door(), a_request()
    door.caller(request)

    door.authenticator.use(Snapshot(revision=2, keys={}))

    with pytest.raises(InvalidApiKey):
        door.caller(request.again())


def test_a_key_that_ends_meanwhile_is_not_let_in_by_its_head(monkeypatch: pytest.MonkeyPatch):
    door, request = Door(), a_request()
    ends = time.time() + 60.0
    door.authenticator.use(Snapshot(revision=2, keys={DEVELOPER: key_entry(DEVELOPER, expires_at=ends)}))
    door.caller(request)

    monkeypatch.setattr(time, "time", lambda: ends + 1.0)

    with pytest.raises(InvalidApiKey):
        door.caller(request.again())
