from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from control_fakes import Silent, TickingClock
from house_store import HouseStore
from pilothouse.control.evidence import LOST_AFTER_S, Evidence
from pilothouse.control.rollouts import Rollouts, Surroundings, promoted
from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound
from pilothouse.domain.record import Content, InferenceRecord, JournalEntry, Shadowed
from pilothouse.domain.rollout import ANSWERS, Rollout
from pilothouse.domain.snapshot import Shadow
from pilothouse.domain.spec import (
    DeploymentSpec,
    EndpointSpec,
    JudgeSpec,
    ModelSpec,
    RolloutSpec,
    RouteSpec,
    Spec,
)
from pilothouse.domain.status import DeploymentStatus, SystemStatus
from pilothouse.ports.judge import Score
from pilothouse.ports.store import SealedRecord, StoredSpec
from pilothouse.testing.conformance_releases import make_feedback
from pilothouse.testing.scripted_judge import ScriptedJudge

QUICK = RolloutSpec(steps=(10, 50), step_pairs=5, margin=0.1, alpha=0.05)
DECLARED = Spec(
    models={"m": ModelSpec(source="file:/m.gguf")},
    deployments={"old": DeploymentSpec(model="m"), "new": DeploymentSpec(model="m")},
    endpoints={"e": EndpointSpec(routes=[RouteSpec(deployment="old")], rollout=QUICK)},
)
JUDGED = replace(
    DECLARED,
    endpoints={"e": replace(DECLARED.endpoints["e"], judges={"polite": JudgeSpec(kind="refusal")})},
)


class Defective:
    name = "defective"

    def score(self, answer: str) -> Score:
        raise ZeroDivisionError(answer)


class House:
    """A store and a spec that outlive controllers; `controller` is the one that lives now."""

    def __init__(self, spec: Spec = DECLARED) -> None:
        self.store = HouseStore()
        self.clock = TickingClock()
        self.log = Silent()
        self.spec = spec
        self.edits = 0
        self.refusal = ""
        self.changes = 0
        self.ready = {"old": 1, "new": 1}
        self.failed = ""
        self.told: list[str] = []
        self.retried: dict[tuple[str, str], int] = {("e", "new"): 99}
        self.number = 0
        self.make_judge: Callable[[str, JudgeSpec], Any] = lambda name, _: ScriptedJudge(name, {"good": 1.0})

    async def begin(self) -> "House":
        """A controller starts, perhaps after another was killed."""
        self.evidence = Evidence(self.make_judge, clock=self.clock, log=self.log)
        self.evidence.declare(self.spec)
        self.rollouts = Rollouts(
            self.store,
            self.evidence,
            Surroundings(
                spec=lambda: self.spec,
                edit=self.edit,
                system=self.system,
                changed=self.change,
                retried=lambda: dict(self.retried),
                happened=lambda occurrence: self.told.append(occurrence.reason),
            ),
            clock=self.clock,
            log=self.log,
        )
        await self.rollouts.load()
        return self

    async def edit(self, change: Callable[[Spec], Spec], author: str) -> StoredSpec:
        if self.refusal:
            raise InvalidRequest(self.refusal)
        changed = change(self.spec)
        self.edits += changed != self.spec
        self.spec = changed
        return StoredSpec(revision=1, spec=changed, author=author, time=0.0)

    def system(self) -> SystemStatus:
        return SystemStatus(
            deployments={
                name: DeploymentStatus(
                    name=name,
                    phase="failed" if self.failed and not ready else "ready",
                    message=self.failed,
                    ready=ready,
                )
                for name, ready in self.ready.items()
            }
        )

    def change(self) -> None:
        self.changes += 1

    async def answer(self, deployment: str, text: str = "good", **facts: Any) -> str:
        """One request, from the journal into the store, as the drain does it."""
        self.number += 1
        record = InferenceRecord(
            id=f"req_{self.number}",
            time=self.clock.time,
            team="red",
            key_id="k",
            endpoint="e",
            deployment=deployment,
        )
        record = replace(record, **facts)
        entry = JournalEntry(record, Content(b"{}", [text]))

        def drain(unit: Any) -> None:
            unit.records.insert_many([SealedRecord(record=record)])
            self.evidence.take(unit, [entry])

        await self.store(drain)
        return record.id

    async def copied(
        self, text: str = "good", *, ours: str = "good", is_retried: bool = False, **facts: Any
    ) -> None:
        """A request that the old one answered, and its copy, as a worker keeps them."""
        shadowed = await self.answer("old", ours)
        original = await self.store(lambda unit: unit.records.get(shadowed))
        copy = replace(original, id=f"copy_of_{shadowed}", deployment="new", shadow_of=shadowed)
        entry = JournalEntry(
            replace(copy, **facts), Content(b"{}", [text]), shadowed=Shadowed(original, [ours], is_retried)
        )

        def drain(unit: Any) -> None:
            unit.records.insert_many([SealedRecord(record=entry.record)])
            self.evidence.take(unit, [entry])

        await self.store(drain)
        await self.rollouts.tick()

    async def compare(self, count: int, *, new: str = "good", **facts: Any) -> Rollout:
        for _ in range(count):
            await self.answer("old")
            await self.answer("new", new, **facts)
            await self.rollouts.tick()
        return await self.rollouts.newest("e")


@pytest.fixture
async def house() -> House:
    return await House().begin()


async def test_it_waits_for_the_candidate_and_shares_the_requests_step_by_step(house):
    house.ready["new"] = 0
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    assert house.rollouts.shares("e", {"old": 100}) == {"old": 100}

    house.ready["new"] = 1
    await house.rollouts.tick()
    assert house.rollouts.shares("e", {"old": 100}) == {"old": 9000, "new": 1000}
    await house.compare(5)

    assert house.rollouts.shares("e", {"old": 100}) == {"old": 5000, "new": 5000}
    assert house.changes >= 3
    assert house.rollouts.kept_awake == {"old", "new"}
    assert house.rollouts.shares("other", {"old": 100}) == {"old": 100}


@pytest.fixture
async def shadowing() -> House:
    quick = replace(QUICK, shadow_pairs=6)
    spec = replace(JUDGED, endpoints={"e": replace(JUDGED.endpoints["e"], rollout=quick)})
    house = await House(spec).begin()
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    return house


async def test_as_a_shadow_it_gets_copies_and_no_requests(shadowing):
    assert shadowing.rollouts.shadow("e") == Shadow("old", "new")
    assert shadowing.rollouts.shadow("other") is None
    assert shadowing.rollouts.shares("e", {"old": 100}) == {"old": 100}
    for _ in range(6):
        await shadowing.copied()

    assert shadowing.rollouts.shadow("e") is None
    assert shadowing.rollouts.shares("e", {"old": 100}) == {"old": 9000, "new": 1000}
    rollout = await shadowing.rollouts.newest("e")
    assert {name: one.pairs for name, one in rollout.evidence.items()} == {ANSWERS: 6, "polite": 6}


async def test_a_shadow_counts_as_nobodys_use_and_a_judge_counts_each_answer_once(shadowing):
    for _ in range(4):
        await shadowing.copied("bad")

    (line,) = await shadowing.store(lambda unit: unit.usage.report("team", since=0, until=1e12))
    assert line.sums.requests == 4
    assert dict(shadowing.evidence.scores) == {("e", "old", "polite", "good"): 4}


@pytest.mark.parametrize(("text", "facts"), [("bad", {}), ("", {"code": "upstream_error"})])
async def test_a_worse_one_is_rolled_back_and_no_caller_ever_saw_it(text, facts):
    quick = replace(QUICK, shadow_pairs=50)
    spec = replace(JUDGED, endpoints={"e": replace(JUDGED.endpoints["e"], rollout=quick)})
    house = await House(spec).begin()
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    for _ in range(20):
        await house.copied(text, **facts)
        assert house.rollouts.shares("e", {"old": 100}) == {"old": 100}

    rollout = await house.rollouts.newest("e")
    assert rollout.phase == "rolled_back"
    assert rollout.pairs < 20
    assert house.spec == spec


async def test_what_both_do_equally_badly_is_no_evidence_against_it(shadowing):
    for _ in range(5):
        await shadowing.copied("bad", ours="bad")

    rollout = await shadowing.rollouts.newest("e")
    assert rollout.evidence["polite"].difference == 0


async def test_a_first_attempt_that_failed_counts_though_another_answered(shadowing):
    await shadowing.copied(is_retried=True)

    rollout = await shadowing.rollouts.newest("e")
    assert rollout.evidence[ANSWERS].difference == 1.0
    assert "polite" not in rollout.evidence, "the other's answer is not the stable one's"


async def test_an_equal_candidate_takes_the_place_in_the_spec(house):
    await house.rollouts.start("e", "new", author="k")
    rollout = await house.compare(120)

    assert rollout.phase == "promoted"
    assert house.spec.endpoints["e"].routes == [RouteSpec(deployment="new")]
    assert house.told[0] == "rollout_waiting"
    assert house.told[-1] == "rollout_promoted"
    assert not house.rollouts.active


async def test_a_candidate_that_fails_is_rolled_back_and_the_spec_is_as_it_was(house):
    await house.rollouts.start("e", "new", author="k")
    rollout = await house.compare(40, code="upstream_error")

    assert rollout.phase == "rolled_back"
    assert ANSWERS in rollout.reason
    assert house.spec == DECLARED
    assert house.rollouts.shares("e", {"old": 100}) == {"old": 100}


async def test_failures_that_another_made_good_count_against_who_failed(house):
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    for _ in range(20):
        await house.answer("old")
        house.retried["e", "new"] += 1
        await house.rollouts.tick()

    rollout = await house.rollouts.newest("e")
    assert (rollout.phase, rollout.evidence[ANSWERS].mean_difference) == ("rolled_back", -1.0)
    assert rollout.pairs < 20


async def test_worse_answers_are_caught_by_a_judge_though_none_fails():
    house = await House(JUDGED).begin()
    await house.rollouts.start("e", "new", author="k")
    rollout = await house.compare(40, new="bad")

    assert rollout.phase == "rolled_back"
    assert "polite" in rollout.reason
    assert house.evidence.scores["e", "old", "polite", "good"] >= 5
    assert house.evidence.scores["e", "new", "polite", "bad"] >= 5


async def test_worse_answers_are_caught_by_feedback(house):
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    for number in range(40):
        for deployment, value in (("old", 1.0), ("new", 0.0)):
            record = await house.answer(deployment)
            rated = make_feedback(f"{number}{deployment}", record_id=record, value=value)
            await house.store(lambda unit, rated=rated: unit.feedback.add(rated))
        house.rollouts.expect_feedback()
        await house.rollouts.tick()

    rollout = await house.rollouts.newest("e")
    assert rollout.phase == "rolled_back"
    assert "feedback:thumbs" in rollout.reason


async def test_feedback_waits_for_its_record_and_counts_once_for_each_answer(house):
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    await house.answer("old")
    early = make_feedback("f0", record_id="req_2", time=house.clock.time)
    again = [make_feedback(f"f{n}", record_id="req_2", value=0.0, time=house.clock.time + n) for n in (1, 2)]
    other = make_feedback("f3", record_id="req_2", team="blue", time=house.clock.time)
    for one in (early, *again, other):
        await house.store(lambda unit, one=one: unit.feedback.add(one))
    house.rollouts.expect_feedback()
    await house.rollouts.tick()
    assert await house.store(lambda unit: len(unit.feedback.new(limit=9))) == 4

    await house.answer("new")
    await house.rollouts.tick()

    half = (await house.rollouts.newest("e")).halves["feedback:thumbs"]
    assert (half.candidate, half.candidates) == (1.0, 1)
    assert await house.store(lambda unit: unit.feedback.new(limit=9)) == []


async def test_feedback_whose_record_never_comes_is_given_up(house):
    await house.store(
        lambda unit: unit.feedback.add(make_feedback("f", record_id="req_9", time=house.clock.time))
    )
    await house.rollouts.tick()
    house.clock.time += LOST_AFTER_S + 1
    await house.rollouts.tick()

    assert (await house.store(lambda unit: unit.feedback.page(limit=1)))[0].state == "lost"


async def test_answers_from_a_cache_and_refusals_are_not_counted(house):
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    for facts in (
        {"cache": "hit"},
        {"cache": "semantic"},
        {"code": "rate_limit_exceeded"},
        {"code": "client_closed"},
    ):
        await house.answer("old", **facts)
        await house.answer("new", **facts)
    await house.answer("third")
    await house.answer("old", time=house.clock.time - 99)

    assert not (await house.rollouts.newest("e")).halves


async def test_a_judge_with_a_defect_costs_its_score_and_never_the_record():
    house = House(JUDGED)
    house.make_judge = lambda name, spec: Defective()
    await house.begin()

    record = await house.answer("old")

    assert (await house.store(lambda unit: unit.records.get(record))).id == record
    assert not house.evidence.scores


async def test_a_controller_that_is_killed_anywhere_goes_on_with_what_was_seen(house):
    await house.rollouts.start("e", "new", author="k")
    before = await house.compare(8)
    await house.begin()
    assert house.rollouts.shares("e", {"old": 100})["new"] == 5000

    rollout = await house.compare(120)

    assert before.pairs == 7
    assert rollout.phase == "promoted"
    assert rollout.pairs > 7


async def test_killed_between_the_spec_and_the_last_word_it_is_promoted_once(house):
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    decided = replace(house.rollouts.active["e"], phase="promoting")
    await house.store(lambda unit: unit.rollouts.put(decided))
    house.spec = promoted(house.spec, decided)
    await house.begin()

    await house.rollouts.tick()

    assert (await house.rollouts.newest("e")).phase == "promoted"
    assert house.edits == 0


async def test_abort_is_instant_and_works_while_nothing_else_does(house):
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()

    aborted = await house.rollouts.abort("e", author="key_7")

    assert (aborted.phase, aborted.reason) == ("aborted", "aborted by key_7")
    assert house.rollouts.shares("e", {"old": 100}) == {"old": 100}
    with pytest.raises(NotFound):
        await house.rollouts.abort("e", author="key_7")


async def test_promoted_by_hand_it_serves_at_once_if_anything_is_ready(house):
    await house.rollouts.start("e", "new", author="k")
    house.ready["new"] = 0
    with pytest.raises(Conflict, match="no replica of new is ready"):
        await house.rollouts.promote("e", author="k")
    house.ready["new"] = 1

    assert (await house.rollouts.promote("e", author="k")).phase == "promoted"
    assert house.spec.endpoints["e"].routes[0].deployment == "new"


async def test_one_at_a_time_and_only_of_what_is_declared(house):
    await house.rollouts.start("e", "new", author="k")
    for endpoint, candidate, error in (
        ("e", "new", Conflict),
        ("e", "none", NotFound),
        ("none", "new", NotFound),
    ):
        with pytest.raises(error):
            await house.rollouts.start(endpoint, candidate, author="k")
    await house.rollouts.abort("e", author="k")
    with pytest.raises(Conflict, match="already"):
        await house.rollouts.start("e", "old", author="k")


async def test_a_candidate_that_does_not_run_or_is_deleted_is_rolled_back(house):
    house.ready["new"], house.failed = 0, "the model does not fit"
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    assert "does not fit" in (await house.rollouts.newest("e")).reason

    house.clock.time += 1
    await house.rollouts.start("e", "new", author="k")
    house.spec = replace(house.spec, deployments={"old": DeploymentSpec(model="m")})
    await house.rollouts.tick()
    assert "not declared" in (await house.rollouts.newest("e")).reason


async def test_whoever_routes_elsewhere_meanwhile_ends_it(house):
    await house.rollouts.start("e", "new", author="k")
    routes = [RouteSpec(deployment="new")]
    house.spec = replace(DECLARED, endpoints={"e": EndpointSpec(routes=routes)})
    await house.rollouts.tick()

    assert (await house.rollouts.newest("e")).phase == "aborted"


async def test_a_candidate_that_is_a_route_already_takes_both_shares(house):
    weights = {"old": 60, "new": 10, "third": 30}
    routes = [RouteSpec(deployment=name, weight=weight) for name, weight in weights.items()]
    declared = replace(DECLARED, endpoints={"e": replace(DECLARED.endpoints["e"], routes=routes)})
    house.spec = declared
    rollout = await house.rollouts.start("e", "new", author="k")

    after = promoted(declared, rollout).endpoints["e"].routes

    assert {route.deployment: route.weight for route in after} == {"new": 70, "third": 30}


async def test_a_promotion_that_the_spec_does_not_allow_any_more_ends_it(house):
    house.refusal = "spec: endpoints.e.routes: the weights 50, 20 sum to 70, not 100"
    await house.rollouts.start("e", "new", author="k")
    await house.rollouts.tick()
    await house.rollouts.promote("e", author="k")

    ended = await house.rollouts.newest("e")
    assert (ended.phase, "sum to 70" in ended.reason) == ("aborted", True)


async def test_a_candidate_that_was_declared_just_now_is_waited_for() -> None:
    house = await House().begin()
    await house.rollouts.start("e", "new", author="me")
    del house.ready["new"]  # the control loop has not looked since

    await house.rollouts.tick()

    assert house.rollouts.active["e"].phase == "waiting"
