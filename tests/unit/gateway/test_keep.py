"""Each request is recorded once, with what happened, and nobody's words where they are not wanted."""

import asyncio

import pytest

from gateway_rig import Full, ListJournal, endpoint_entry
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.principal import Principal
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway.call import Call
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.meter import Meters
from pilothouse.gateway.route import EndpointRoutes
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.message import Request
from pilothouse.wire.openai.dialect import CHAT
from pilothouse.wire.openai.inbound import read_chat

BODY = b'{"model":"chat","messages":[{"role":"user","content":"a secret"}],"stream":true}'


class Kept:
    """A keeper on a journal of memory."""

    def __init__(self, when_full: str = "refuse") -> None:
        self.journal = ListJournal()
        self.dropped = 0
        self.meters = Meters(lambda _: True)
        self.keeper = Keeper(
            self.journal, Full, self.meters, subject_key=b"key", when_full=when_full,
            on_dropped=self._drop, waits_for_disk=False, cohort=Cohort(),
        )  # fmt: skip

    def _drop(self) -> None:
        self.dropped += 1


def a_call(team: str = "a", *, records: str = "sealed") -> Call:
    request = Request("POST", "/v1/chat/completions", "", {}, "127.0.0.1")
    request.body = BODY
    request.received_ns = 1
    call = Call(request, None, CHAT)
    call.principal = Principal("key1", team, "developer", None, None)
    call.routes = EndpointRoutes(endpoint_entry("chat", records=records), {})
    call.ask = call.text = read_chat(BODY)
    call.deployment, call.replica = "chat", "chat-0"
    call.usage = Usage(5, 7, 2)
    call.answers = [["an ", "answer"], ["another"]]
    call.finish_reason = "stop"
    call.first_token_ns = 2_000_001
    call.overhead_us = 42
    return call


async def test_a_record_says_what_happened_field_by_field():
    kept, call = Kept(), a_call()

    await kept.keeper.keep(call)

    record = kept.journal.entries[0].record
    assert record.duration_ms > 0
    assert record == InferenceRecord(
        id=call.id,
        time=call.created_at,
        team="a",
        key_id="key1",
        endpoint="chat",
        deployment="chat",
        replica="chat-0",
        kind="chat",
        code="ok",
        subject_hash="",
        input_tokens=5,
        output_tokens=7,
        cached_tokens=2,
        ttft_ms=2.0,
        duration_ms=record.duration_ms,
        overhead_us=42,
        cost_micro_usd=0,
        cache="bypass",
        finish_reason="stop",
        streamed=True,
    )


async def test_content_is_the_body_as_it_came_and_each_answer_whole():
    kept = Kept()

    await kept.keeper.keep(a_call())

    content = kept.journal.entries[0].content
    assert content.request == BODY
    assert content.answers == ["an answer", "another"]


async def test_where_no_content_is_wanted_none_is_kept():
    kept = Kept()

    await kept.keeper.keep(a_call(records="none"))

    assert kept.journal.entries[0].content is None
    assert kept.journal.entries[0].record.output_tokens == 7


async def test_a_request_is_recorded_once():
    kept, call = Kept(), a_call()

    for _ in range(3):
        await kept.keeper.keep(call)

    assert len(kept.journal.entries) == 1


async def test_what_ends_together_shares_a_frame():
    kept, calls = Kept(), [a_call() for _ in range(3)]
    groups: list[int] = []
    append = kept.journal.append
    kept.journal.append = lambda *payloads: (groups.append(len(payloads)), append(*payloads))

    await asyncio.gather(*[kept.keeper.keep(call) for call in calls])

    assert groups == [1]
    assert [entry.record.id for entry in kept.journal.entries] == [call.id for call in calls]


async def test_of_those_written_together_all_hear_that_it_failed():
    kept = Kept("refuse")
    kept.journal.is_full = True

    heard = await asyncio.gather(*[kept.keeper.keep(a_call()) for _ in range(2)], return_exceptions=True)

    assert [type(error) for error in heard] == [StoreUnavailable, StoreUnavailable]
    assert kept.keeper.dropped == 2


class Told:
    """A responder that writes down, with how many records there were before."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.is_promised = False
        self.sent: list[tuple[int, int, bytes]] = []

    def promise(self) -> None:
        self.is_promised = True

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        self.sent.append((len(self._kept.journal.entries), status, body))


def answering(kept: Kept) -> tuple[Call, Told]:
    call = a_call()
    call.responder = told = Told(kept)
    return call, told


async def test_an_answer_goes_out_after_the_records_of_its_turn():
    kept = Kept()
    calls = [answering(kept) for _ in range(2)]

    for call, _ in calls:
        assert kept.keeper.answer(call, b"", b"words") is None
    promised = [(told.is_promised, list(told.sent)) for _, told in calls]
    await asyncio.sleep(0)

    assert promised == [(True, []), (True, [])]
    assert [told.sent for _, told in calls] == [[(2, 200, b"words")], [(2, 200, b"words")]]


async def test_an_answer_whose_record_is_lost_becomes_the_error_where_it_should():
    refusing, serving = Kept("refuse"), Kept("serve")
    refusing.journal.is_full = serving.journal.is_full = True
    (refused, told), (served, heard) = answering(refusing), answering(serving)

    assert refusing.keeper.answer(refused, b"", b"words") is None
    assert serving.keeper.answer(served, b"", b"words") is None
    await asyncio.sleep(0)

    assert [(status, b"store_unavailable" in body) for _, status, body in told.sent] == [(503, True)]
    assert heard.sent == [(0, 200, b"words")]
    assert (refusing.dropped, serving.dropped) == (1, 1)


async def test_a_caller_who_leaves_meanwhile_is_recorded_with_the_others():
    kept, stays, leaves = Kept(), a_call(), a_call()
    leaving = asyncio.create_task(kept.keeper.keep(leaves))
    staying = asyncio.create_task(kept.keeper.keep(stays))
    await asyncio.sleep(0)
    leaving.cancel()

    await staying

    assert {entry.record.id for entry in kept.journal.entries} == {stays.id, leaves.id}


async def test_whoever_is_gone_is_recorded_with_nobody_waiting():
    kept, call = Kept(), a_call()

    kept.keeper.keep_soon(call)
    kept.keeper.flush()

    assert kept.journal.entries[0].record.id == call.id


async def test_nobody_is_not_recorded():
    kept, call = Kept(), a_call()
    call.principal = None

    await kept.keeper.keep(call)

    assert kept.journal.entries == []


async def test_of_an_endpoint_that_was_refused_a_short_name_is_kept_and_no_content():
    kept, call = Kept(), a_call()
    call.routes = None
    call.ask = read_chat(BODY.replace(b'"chat"', b'"' + b"x" * 5000 + b'"'))

    await kept.keeper.keep(call)

    assert kept.journal.entries[0].record.endpoint == "x" * 100
    assert kept.journal.entries[0].content is None


async def test_a_full_journal_refuses_where_it_should():
    kept, call = Kept("refuse"), a_call()
    kept.journal.is_full = True

    with pytest.raises(StoreUnavailable) as caught:
        await kept.keeper.keep(call)
    await kept.keeper.keep(call)

    assert caught.value.retry_after_s
    assert (kept.keeper.dropped, kept.dropped) == (1, 1)


async def test_a_full_journal_is_counted_where_serving_goes_on():
    kept = Kept("serve")
    kept.journal.is_full = True

    await kept.keeper.keep(a_call())
    await kept.keeper.keep(a_call())

    assert (kept.keeper.dropped, kept.dropped) == (2, 2)


def test_room_is_asked_for_before_work_begins():
    refusing, serving = Kept("refuse"), Kept("serve")
    refusing.journal.has_no_room = serving.journal.has_no_room = True

    with pytest.raises(StoreUnavailable):
        refusing.keeper.check_room(100)
    serving.keeper.check_room(100)


def test_a_subject_is_a_hash_that_differs_by_team_and_by_key():
    def hashed(team: str, subject: str, key: bytes = b"key") -> str:
        kept = Kept()
        kept.keeper._subject_key = key
        return kept.keeper.subject_hash(team, subject)

    same = hashed("a", "ann@example.org")

    assert same == hashed("a", "ann@example.org")
    assert "ann" not in same
    assert (
        len({same, hashed("b", "ann@example.org"), hashed("a", "bob"), hashed("a", "ann@example.org", b"k2")})
        == 4
    )


def test_hashes_are_remembered_of_short_names_and_of_a_bounded_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pilothouse.gateway.keep._MOST_SUBJECTS", 3)
    kept = Kept()

    for name in ("ann", "bob", "cid", "dan", " " * 10_000 + "eve", b"fay" + b" " * 10_000):
        first = kept.keeper.subject_hash("a", name)
        assert kept.keeper.subject_hash("a", name) == first

    assert len(kept.keeper._subjects) <= 3
    assert all(len(name) < 300 for _, name in kept.keeper._subjects)
