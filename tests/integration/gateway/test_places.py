"""Places under many callers: the queue, the slots, several choices, and what goes away meanwhile."""

import asyncio
import json

from gateway_rig import DEVELOPER, OTHER_TEAM, endpoint_entry, house, replica_entry, snapshot
from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.snapshot import DeploymentEntry, Snapshot
from watched_engine import WatchedEngine, endless, fails, words

STREAM = b',"stream":true'


async def test_a_full_queue_is_told_at_once_and_when_to_come_back():
    engine = WatchedEngine(endless())
    served = snapshot(replica_entry(max_inflight=1), endpoints=(endpoint_entry(queue_size=2),))

    async with house(engine, served) as h:
        async with h.asking(more=STREAM), h.asking(), h.asking():
            await h.until(lambda: h.state.queued == 2)
            answer = await h.ask()

            assert answer.status == 503
            assert json.loads(answer.body)["error"]["code"] == "overloaded"
            assert answer.headers["retry-after"] == "1"
        await h.until(lambda: h.is_quiet)


async def test_who_asks_first_is_served_first():
    served_order: list[str] = []

    async def say(request):
        served_order.append(request.subject)
        async for chunk in words("a", pause_s=0.005)(request):
            yield chunk

    async with house(WatchedEngine(say), snapshot(replica_entry(max_inflight=1))) as h:
        tasks = []
        for n in range(8):
            tasks.append(asyncio.create_task(h.ask(more=b',"user":"%d"' % n)))
            await h.until(lambda n=n: h.state.queued + h.state.inflight + len(h.records) >= n + 1)
        await asyncio.gather(*tasks)

    assert served_order == [str(n) for n in range(8)]


async def test_waiting_for_a_place_ends_with_the_endpoints_time():
    engine = WatchedEngine(endless())
    served = snapshot(replica_entry(max_inflight=1))
    chat = served.endpoints["chat"]
    hurried = Snapshot(
        **{name: getattr(served, name) for name in ("epoch", "revision", "keys", "deployments", "replicas")},
        endpoints={"chat": type(chat)(name="chat", revision=1, routes=chat.routes, timeout_s=0.2)},
    )

    async with house(engine, hurried) as h:
        async with h.asking(more=STREAM):
            await h.until(lambda: engine.running == 1)
            answer = await h.ask()

        assert answer.status == 504
        assert json.loads(answer.body)["error"]["code"] == "deadline_exceeded"


async def test_those_who_wait_are_told_when_the_replica_goes():
    engine = WatchedEngine(endless())
    gone = DeploymentEntry(name="chat", phase="failed", reason="the engine died", retry_after_s=4.0)

    async with house(engine, snapshot(replica_entry(max_inflight=1))) as h:
        async with h.asking(more=STREAM) as running, h.asking() as waits:
            await h.until(lambda: h.state.queued == 1)
            served = snapshot(replica_entry("x", "other"), deployments=(gone,))
            h.state.apply(Snapshot(
                epoch="e", revision=2, keys=served.keys, deployments=served.deployments,
                endpoints=snapshot(replica_entry()).endpoints,
            ))  # fmt: skip
            answer = await waits.answer()
            still = await running.reader.read(100)

        assert answer.status == 503
        assert "the engine died" in json.loads(answer.body)["error"]["message"]
        assert answer.headers["retry-after"] == "4"
        assert still, "what runs goes on with what it holds"


async def test_a_prefix_is_reused_within_a_team_and_never_across():
    engine = WatchedEngine(slots=True)

    async with house(engine, snapshot(replica_entry(slots=(3,)))) as h:
        for as_key in (DEVELOPER, DEVELOPER, OTHER_TEAM, DEVELOPER):
            await h.ask(as_key=as_key)

    assert [placement.slot for _, placement in engine.asked] == [3] * 4
    assert [placement.reuse_prefix for _, placement in engine.asked] == [False, True, False, False]


async def test_a_slot_that_never_answered_the_team_is_not_its_own():
    """Team b's request failed at the engine: the slot still holds team a's prompt."""
    engine = WatchedEngine(slots=True)

    served = snapshot(replica_entry(slots=(0,)), endpoints=(endpoint_entry(retries=0),))

    async with house(engine, served) as h:
        await h.ask(as_key=DEVELOPER)
        engine.say = fails(EngineUnavailable("hung up"))
        await h.ask(as_key=OTHER_TEAM)
        engine.say = words("a")
        await h.ask(as_key=OTHER_TEAM)

    assert [placement.reuse_prefix for _, placement in engine.asked] == [False, False, False]


async def test_three_choices_on_a_slot_engine_have_three_seeds():
    engine = WatchedEngine(slots=True)

    async with house(engine, snapshot(replica_entry(slots=(0, 1)))) as h:
        answer = await h.ask(more=b',"n":3,"seed":10')

    assert len(json.loads(answer.body)["choices"]) == 3
    assert sorted(request.sampling.seed for request, _ in engine.asked) == [10, 11, 12]


async def test_many_requests_for_four_choices_on_two_slots_all_end():
    engine = WatchedEngine(words("a", "b", pause_s=0.001), slots=True)

    async with house(engine, snapshot(replica_entry(slots=(0, 1)))) as h:
        asked = [
            h.ask(more=b',"n":4' + (STREAM if n % 2 else b""), as_key=(DEVELOPER, OTHER_TEAM)[n % 3 == 0])
            for n in range(24)
        ]
        answers = await asyncio.wait_for(asyncio.gather(*asked), 20)

        assert {answer.status for answer in answers} == {200}
        assert not engine.collisions
        assert h.codes == ["ok"] * 24
        assert all(record.output_tokens == 8 for record in h.records)
        assert h.is_quiet


async def test_callers_that_come_and_leave_at_random_lose_no_place():
    engine = WatchedEngine(words("a", "b", "c", pause_s=0.002), slots=True)

    async def caller(h, n: int) -> None:
        more = (STREAM if n % 2 else b"") + (b',"n":3' if n % 5 == 0 else b"")
        async with h.asking(more=more, as_key=(DEVELOPER, OTHER_TEAM)[n % 3 == 0]) as raw:
            if n % 4:
                await raw.answer(timeout_s=20)
            else:
                await asyncio.sleep(0.001 * (n % 17))
                raw.abort()

    async with house(engine, snapshot(replica_entry(slots=(0, 1, 2)))) as h:
        await asyncio.gather(*(caller(h, n) for n in range(60)))
        await h.until(lambda: h.is_quiet and len(h.records) == 60)

        assert not engine.collisions
        assert engine.running == 0
        assert len({record.id for record in h.records}) == 60
        assert set(h.codes) <= {"ok", "client_closed"}
        replica = h.state.places["chat"].replicas["chat-0"]
        assert sorted(replica.free_slots) == [0, 1, 2]
