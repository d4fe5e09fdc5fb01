"""Where requests go when something is wrong: elsewhere, later, or nowhere, and never twice for nothing."""

import asyncio
import json
import time

import pytest

from gateway_rig import ADMIN, DEVELOPER, OTHER_TEAM, endpoint_entry, house, replica_entry, snapshot
from http1_rig import Answer
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.breaker import FAILURES
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import EngineUnavailable, InvalidRequest, Overloaded, UpstreamError
from pilothouse.domain.snapshot import DeploymentEntry, ReplicaEntry, Route, Snapshot
from pilothouse.ports.engine import EngineInfo
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream
from watched_engine import Say, WatchedEngine, endless, fails, silent, words

STREAM = b',"stream":true'
DOWN = EngineUnavailable("nobody listens")


def engines(**says: Say) -> dict[str, WatchedEngine]:
    """One engine a replica; `a_0` is replica `a-0` of deployment `a`."""
    return {name.replace("_", "-"): WatchedEngine(say) for name, say in says.items()}


def served_by(made: dict[str, WatchedEngine], **endpoint: object) -> Snapshot:
    deployments = list(dict.fromkeys(name.split("-")[0] for name in made))
    routes = endpoint.pop("routes", (Route(deployments[0]),))
    entry = endpoint_entry("chat", routes=routes, fallback=tuple(deployments[1:]), **endpoint)
    return snapshot(*[replica_entry(name, name.split("-")[0]) for name in made], endpoints=(entry,))


def using(made: dict[str, WatchedEngine], **endpoint: object):
    return house(lambda entry: made[entry.name], served_by(made, **endpoint))


def outcome(answer: Answer) -> tuple[int, str]:
    body = json.loads(answer.body)
    return answer.status, body["error"]["code"] if "error" in body else "ok"


@pytest.mark.parametrize("more", [b"", STREAM], ids=["whole", "streamed"])
@pytest.mark.parametrize("error", [DOWN, UpstreamError("nonsense"), Overloaded("busy")], ids=lambda e: e.code)
async def test_a_failure_before_the_first_word_goes_to_the_fallback(error: Exception, more: bytes):
    made = engines(first_0=fails(error), spare_0=words("Hello"))

    async with using(made) as h:
        answer = await h.ask(more=more)

        assert answer.status == 200
        assert answer.headers["x-pilothouse-deployment"] == "spare"
        assert b"Hello" in answer.body
        assert h.codes == ["ok"]
        assert (h.records[0].deployment, h.records[0].replica) == ("spare", "spare-0")
        assert h.is_quiet


async def test_another_replica_is_asked_before_another_deployment():
    made = engines(first_0=fails(DOWN), first_1=words("a"), spare_0=words("b"))

    async with using(made) as h:
        for _ in range(4):
            assert (await h.ask()).headers["x-pilothouse-deployment"] == "first"

    assert not made["spare-0"].asked


async def test_an_answer_that_the_caller_has_begun_to_read_is_never_asked_for_again():
    made = engines(first_0=fails(UpstreamError("cut"), after=["half "]), spare_0=words("Hello"))

    async with using(made) as h:
        answer = await h.ask(more=STREAM)

        assert b"Hello" not in answer.body
        assert not made["spare-0"].asked
        assert h.codes == ["upstream_error"]


async def test_a_whole_answer_that_a_provider_had_begun_is_not_paid_twice():
    async def cut(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"choices"')

    async with upstream(cut) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        engine = OpenAIEngine(EngineInfo(name="x", whole=True), url, model="m")
        async with house(engine) as h:
            assert outcome(await h.ask()) == (502, "upstream_error")
            assert server.connections == 1


async def test_a_callers_own_mistake_is_never_tried_again():
    made = engines(first_0=fails(InvalidRequest("no")), spare_0=words("Hello"))

    async with using(made) as h:
        assert outcome(await h.ask()) == (400, "invalid_request")

    assert len(made["first-0"].asked) == 1
    assert not made["spare-0"].asked


async def test_a_fallback_needs_no_budget():
    made = engines(first_0=fails(Overloaded("busy")), spare_0=words("Hello"))

    async with using(made) as h:
        for _ in range(30):
            assert (await h.ask()).headers["x-pilothouse-deployment"] == "spare"


async def test_attempts_are_bounded_and_so_is_their_budget():
    made = engines(first_0=fails(DOWN), first_1=fails(DOWN), first_2=fails(DOWN))

    async with using(made, retries=1) as h:
        assert outcome(await h.ask()) == (503, "engine_unavailable")

    assert sum(len(engine.asked) for engine in made.values()) == 2


async def test_a_replica_that_fails_again_and_again_is_left_alone_and_tried_later(monkeypatch):
    made = engines(first_0=fails(DOWN), spare_0=words("Hello"))

    async with using(made) as h:
        for _ in range(12):
            assert (await h.ask()).status == 200
        assert len(made["first-0"].asked) == FAILURES
        assert len(h.state.places["first"].sick) == 1

        made["first-0"].say = words("back")
        later = time.monotonic() + 6.0
        monkeypatch.setattr("pilothouse.gateway.permit.time.monotonic", lambda: later)
        first, second = await h.ask(), await h.ask()

        assert first.headers["x-pilothouse-deployment"] == "first"
        assert second.headers["x-pilothouse-deployment"] == "first"
        assert not h.state.places["first"].sick


async def test_with_nothing_else_the_answer_is_503_at_once_and_says_when():
    made = engines(first_0=fails(DOWN))

    async with using(made, retries=0) as h:
        for _ in range(int(FAILURES)):
            await h.ask()
        answer = await h.ask()

        assert outcome(answer) == (503, "engine_unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert len(made["first-0"].asked) == FAILURES


async def test_a_team_whose_requests_break_a_replica_keeps_it_from_nobody_else():
    made = engines(first_0=fails(UpstreamError("crashed by a prompt")))

    async with using(made, retries=0) as h:
        for _ in range(10):
            await h.ask(as_key=DEVELOPER)
        made["first-0"].say = words("fine")

        assert (await h.ask(as_key=OTHER_TEAM)).status == 200
        assert (await h.ask(as_key=DEVELOPER)).status == 503


async def test_a_stall_before_the_first_byte_goes_elsewhere_in_time():
    async def stalls(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.hears_a_hang_up()

    async def answers(talk: Upstream, number: int) -> None:
        await talk.request()
        said = b'data: {"choices":[{"index":0,"delta":{"content":"late"},"finish_reason":"stop"}]}\n\n'
        await talk.say(CHUNKED_HEAD + chunked(said, b"data: [DONE]\n\n"))

    async with upstream(stalls) as slow, upstream(answers) as quick:
        ports = {"first-0": slow.port, "spare-0": quick.port}
        served = served_by(dict.fromkeys(ports), first_byte_timeout_s=0.2, timeout_s=10.0)

        def connect(entry: ReplicaEntry) -> OpenAIEngine:
            url = f"http://127.0.0.1:{ports[entry.name]}/v1"
            return OpenAIEngine(EngineInfo(name="x"), url, model="m")

        async with house(connect, served) as h:
            answer = await h.ask(more=STREAM)

    assert answer.headers["x-pilothouse-deployment"] == "spare"
    assert b"late" in answer.body


@pytest.mark.parametrize("more", [b"", STREAM], ids=["whole", "streamed"])
async def test_the_slower_of_two_is_cancelled_when_the_other_speaks(more: bytes):
    made = engines(first_0=silent(), first_1=silent())

    async def only_as_the_second(request):
        if all(engine.running for engine in made.values()):
            yield Chunk((Delta("second"),))
        await asyncio.get_running_loop().create_future()

    for engine in made.values():
        engine.say = only_as_the_second
    async with using(made, hedge_after_s=0.05, timeout_s=5.0) as h:
        async with h.asking(more=more) as raw:
            await h.until(lambda: all(engine.asked for engine in made.values()))
            await h.until(lambda: sum(engine.running for engine in made.values()) == 1)
            await h.until(lambda: h.state.inflight == 1)
            raw.close()
        await h.until(lambda: h.is_quiet and not any(engine.running for engine in made.values()))
        await h.until(lambda: h.codes == ["client_closed"])

        assert h.contents[0].answers == ["second"]
        assert [len(engine.asked) for engine in made.values()] == [1, 1]


async def test_a_quick_answer_is_asked_for_once():
    made = engines(first_0=words("a"), first_1=words("a"))

    async with using(made, hedge_after_s=1.0) as h:
        for _ in range(4):
            assert (await h.ask()).status == 200

    assert sum(len(engine.asked) for engine in made.values()) == 4


async def test_a_request_for_one_that_sleeps_waits_until_it_is_awake():
    asleep = DeploymentEntry(name="chat", phase="ready", reason="scaled_to_zero", may_hold=True)
    entry = endpoint_entry("chat", timeout_s=5.0)
    told: list[dict[str, int]] = []

    async with house(WatchedEngine(), snapshot(endpoints=(entry,), deployments=(asleep,))) as h:
        h.state.on_held = lambda: told.append(h.state.queued_by_deployment)
        async with h.asking() as raw:
            await h.until(lambda: h.state.queued == 1)
            h.state.apply(snapshot(replica_entry(), endpoints=(entry,)))
            answer = await raw.answer()

    assert answer.status == 200
    assert told == [{"chat": 1}]


async def test_what_cannot_wake_up_is_told_to_those_who_wait():
    entry = endpoint_entry("chat", timeout_s=5.0)
    asleep = DeploymentEntry(name="chat", phase="ready", may_hold=True)
    failed = DeploymentEntry(name="chat", phase="failed", reason="no memory", retry_after_s=30.0)

    served = snapshot(endpoints=(entry,), deployments=(asleep,))
    async with house(WatchedEngine(), served) as h, h.asking() as raw:
        await h.until(lambda: h.state.queued == 1)
        h.state.apply(snapshot(endpoints=(entry,), deployments=(failed,)))
        answer = await raw.answer()

    assert outcome(answer) == (503, "engine_unavailable")
    assert answer.headers["retry-after"] == "30"
    assert "no memory" in json.loads(answer.body)["error"]["message"]


async def test_a_name_and_its_aliases_are_one_endpoint():
    served = snapshot(replica_entry(), endpoints=(endpoint_entry(aliases=("gpt-4o",)),))

    async with house(WatchedEngine(), served) as h:
        body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}'
        answer = await h.ask(body=body)
        listed = await h.ask("/v1/models", method="GET")

        assert json.loads(answer.body)["model"] == "gpt-4o"
        assert [record.endpoint for record in h.records] == ["chat"]
        assert [model["id"] for model in json.loads(listed.body)["data"]] == ["chat", "gpt-4o"]


@pytest.mark.parametrize(
    ("as_key", "word", "status"),
    [(ADMIN, b"high", 200), (DEVELOPER, b"high", 403), (DEVELOPER, b"low", 200), (DEVELOPER, b"soon", 400)],
)
async def test_who_may_go_before_his_colleagues(as_key: str, word: bytes, status: int):
    async with house() as h:
        answer = await h.ask(as_key=as_key, headers=b"x-pilothouse-priority: %s\r\n" % word)

    assert answer.status == status


async def test_a_full_queue_gives_up_a_request_of_the_flood_for_another_team():
    engine = WatchedEngine(endless())
    served = snapshot(replica_entry(max_inflight=1), endpoints=(endpoint_entry(queue_size=3),))

    async with house(engine, served) as h:
        async with h.asking(more=STREAM, as_key=OTHER_TEAM):
            await h.until(lambda: engine.running == 1)
            flood = [asyncio.create_task(h.ask(as_key=OTHER_TEAM)) for _ in range(3)]
            await h.until(lambda: h.state.queued == 3)
            async with h.asking(as_key=DEVELOPER):
                done, _ = await asyncio.wait(flood, timeout=3.0, return_when=asyncio.FIRST_COMPLETED)
                assert [outcome(task.result()) for task in done] == [(503, "overloaded")]
                assert h.state.queued == 3
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
