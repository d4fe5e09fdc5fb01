"""Any interleaving of work, failures and controller crashes ends in what was declared."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pilothouse.domain.plan import (
    Action,
    DrainReplica,
    Observed,
    PullModel,
    Retry,
    ServeReplica,
    StartReplica,
    StopReplica,
    plan,
    subject,
    wanted_replicas,
)
from pilothouse.domain.spec import DeploymentSpec, ModelSpec, ReplicaRange, Spec
from pilothouse.domain.status import Replica

SPECS = [
    Spec(
        models={"m": ModelSpec(source="file:/m.gguf")},
        deployments={
            name: DeploymentSpec(
                model="m", replicas=ReplicaRange(min=count, max=3), engine_options={"slots": slots}
            )
            for name, count, slots in shape
        },
    )
    for shape in [[], [("a", 1, 1)], [("a", 2, 1)], [("a", 1, 2)], [("a", 0, 2), ("b", 2, 1)]]
]


class World(RuleBasedStateMachine):
    """Processes that live and die, a controller that forgets, and actions that may fail half-way."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SPECS[1]
        self.processes: dict[str, str] = {}  # name -> "starting" | "ready" | "failed"
        self.deployment_of: dict[str, str] = {}
        self.pulled = False
        self.desired: dict[str, int] = {}
        self.now = 0.0
        self.forget()

    def forget(self) -> None:
        """The controller was killed: all that it knew besides the world is gone."""
        self.in_flight: dict[str, Action] = {}
        self.draining: dict[str, float] = {}
        self.retries: dict[str, Retry] = {}

    def observed(self) -> Observed:
        states = {
            name: "draining" if name in self.draining and state == "ready" else state
            for name, state in self.processes.items()
        }
        return Observed(
            replicas=tuple(
                Replica(
                    name=name,
                    deployment=self.deployment_of[name],
                    model_digest="x",
                    state=state,  # type: ignore[arg-type]
                    engine="e",
                    address="",
                )
                for name, state in states.items()
            ),
            models={"m": "x"} if self.pulled else {},
            draining=dict(self.draining),
            busy=frozenset(self.in_flight),
            retries=dict(self.retries),
            desired=dict(self.desired),
        )

    @rule()
    def tick(self) -> None:
        self.now += 1
        for action in plan(self.spec, self.observed(), self.now):
            assert subject(action) not in self.in_flight
            match action:
                case DrainReplica(name=name):
                    self.draining[name] = self.now
                case ServeReplica(name=name):
                    del self.draining[name]
                case _:
                    self.in_flight[subject(action)] = action

    def effect(self, action: Action) -> None:
        match action:
            case StartReplica(name=name, deployment=deployment):
                assert name not in self.processes, "two processes of one name"
                self.processes[name] = "starting"
                self.deployment_of[name] = deployment
            case StopReplica(name=name):
                self.processes.pop(name, None)
                self.draining.pop(name, None)
            case PullModel():
                self.pulled = True

    @rule(pick=st.integers(0, 9), outcome=st.sampled_from(["done", "failed", "done_but_reported_failed"]))
    def finish(self, pick: int, outcome: str) -> None:
        if self.in_flight:
            name = sorted(self.in_flight)[pick % len(self.in_flight)]
            action = self.in_flight.pop(name)
            if outcome != "failed":
                self.effect(action)
            if outcome != "done":
                self.retries[name] = Retry(1, self.now + 2)

    @rule(pick=st.integers(0, 9), state=st.sampled_from(["ready", "failed"]))
    def change(self, pick: int, state: str) -> None:
        if self.processes:
            name = sorted(self.processes)[pick % len(self.processes)]
            if self.processes[name] != "failed":
                self.processes[name] = state

    @rule(done=st.booleans())
    def crash(self, done: bool) -> None:
        """Killed with actions in flight: the target did all of them, or none."""
        for action in self.in_flight.values() if done else ():
            self.effect(action)
        self.forget()

    @rule(number=st.integers(0, len(SPECS) - 1))
    def declare(self, number: int) -> None:
        self.spec = SPECS[number]

    @rule(count=st.integers(0, 3))
    def rescale(self, count: int) -> None:
        """Scaling decided anew."""
        self.desired = {"a": count}

    @invariant()
    def work_is_bounded(self) -> None:
        assert len(self.in_flight) <= 5

    def teardown(self) -> None:
        """Left in peace, it becomes what was declared."""
        for _ in range(200):
            self.tick()
            for name in list(self.in_flight):
                self.effect(self.in_flight.pop(name))
            for name, state in self.processes.items():
                self.processes[name] = "ready" if state == "starting" else state

        wanted = {name for names in wanted_replicas(self.spec, self.observed()).values() for name in names}
        if self.spec.deployments:
            assert self.pulled
        assert self.processes == dict.fromkeys(wanted, "ready")
        assert not self.draining


TestConvergence = World.TestCase
TestConvergence.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
