"""
One plan over 10,000 replicas, as the control loop makes at every change.

Two cases: nothing to do, and a tenth of the replicas dead with every deployment
in the middle of a rolling update.

    python bench/plan.py [--quick] [--json]
"""

import gc
import time

from pilothouse.domain.plan import Observed, plan, wanted_replicas
from pilothouse.domain.spec import DeploymentSpec, ModelSpec, ReplicaRange, Spec
from pilothouse.domain.status import Replica, ReplicaState
from rig.report import Report, figure, options, publish

DEPLOYMENTS = 200
EACH = 50


def declared(slots: int) -> Spec:
    one = DeploymentSpec(
        model="m", replicas=ReplicaRange(min=EACH, max=EACH), engine_options={"slots": slots}
    )
    return Spec(
        models={"m": ModelSpec(source="file:/m.gguf")},
        deployments={f"d{number}": one for number in range(DEPLOYMENTS)},
    )


def observed(spec: Spec, *, troubled: bool) -> Observed:
    names = wanted_replicas(spec, Observed(models={"m": "sha256:aa"}))
    replicas: list[Replica] = []
    for deployment, own in names.items():
        for name in own:
            state: ReplicaState = "failed" if troubled and len(replicas) % 10 == 0 else "ready"
            replicas.append(
                Replica(
                    name=name,
                    deployment=deployment,
                    model_digest="sha256:aa",
                    state=state,
                    engine="llama.cpp",
                    address="unix:/s",
                )
            )
    return Observed(replicas=tuple(replicas), models={"m": "sha256:aa"})


def samples_ms(spec: Spec, seen: Observed, rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        plan(spec, seen, 0.0)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def main() -> None:
    given = options(__doc__ or "").parse_args()
    rounds = 10 if given.quick else 50
    old, new = declared(4), declared(8)
    calm, troubled = observed(old, troubled=False), observed(old, troubled=True)
    report = Report(
        bench="plan: one plan over 10,000 replicas",
        method=f"{DEPLOYMENTS} deployments of {EACH} replicas, {rounds} plans each; median (least .. most)",
        figures=[
            figure("nothing to do", samples_ms(old, calm, rounds), unit="ms", goal="<= 50"),
            figure(
                "all being replaced, a tenth dead", samples_ms(new, troubled, rounds), unit="ms", goal="<= 50"
            ),
        ],
    )
    publish(report, given)


if __name__ == "__main__":
    main()
