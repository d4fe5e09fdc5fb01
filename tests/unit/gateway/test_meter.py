"""Each record is counted once, under labels that nobody can invent."""

from msgspec.structs import replace

from gateway_rig import replica_entry
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.snapshot import DeploymentEntry
from pilothouse.gateway.meter import Meters
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import ReplicaPlaces
from pilothouse.kit.metrics import Registry
from watched_engine import WatchedEngine

RECORD = InferenceRecord(
    id="r",
    time=1.0,
    team="a",
    key_id="k",
    endpoint="chat",
    deployment="d",
    input_tokens=10,
    output_tokens=5,
    cached_tokens=4,
    ttft_ms=100.0,
    duration_ms=500.0,
    overhead_us=300,
)


def text_of(*records: InferenceRecord, known: frozenset[str] = frozenset({"chat"})) -> str:
    meters = Meters(lambda name: name in known)
    for record in records:
        meters.count(record)
    return Registry.merged([meters.dump()]).render()


def test_a_request_counts_in_each_family():
    text = text_of(RECORD)

    for line in (
        'pilothouse_requests_total{endpoint="chat",deployment="d",code="ok"} 1',
        'pilothouse_tokens_total{endpoint="chat",deployment="d",kind="input"} 10',
        'pilothouse_tokens_total{endpoint="chat",deployment="d",kind="output"} 5',
        'pilothouse_tokens_total{endpoint="chat",deployment="d",kind="cached"} 4',
        'pilothouse_request_duration_seconds_sum{endpoint="chat",deployment="d"} 0.5',
        'pilothouse_time_to_first_token_seconds_sum{endpoint="chat",deployment="d"} 0.1',
        'pilothouse_time_per_output_token_seconds_sum{endpoint="chat",deployment="d"} 0.1',
        'pilothouse_overhead_seconds_sum{endpoint="chat",deployment="d"} 0.0003',
    ):
        assert line in text.splitlines(), text


def test_names_that_callers_invent_share_one_label():
    text = text_of(*(replace(RECORD, endpoint=f"invented{n}", code="model_not_found") for n in range(50)))

    assert "invented" not in text
    assert 'pilothouse_requests_total{endpoint="",deployment="d",code="model_not_found"} 50' in text


def test_every_record_counts_whenever_it_is_looked():
    meters = Meters(lambda _: True)
    for n in range(1000):
        meters.count(RECORD)
        if n % 300 == 0:
            meters.dump()

    text = Registry.merged([meters.dump()]).render()

    assert 'code="ok"} 1000' in text


def test_output_counts_where_the_engine_gave_no_prompt_tokens():
    """An engine that says no usage: pieces were counted, and must not vanish."""
    assert 'kind="output"} 5' in text_of(replace(RECORD, input_tokens=0))


def test_how_full_deployments_are_is_told():
    meters, places = Meters(lambda _: True), Places("d")
    engine = WatchedEngine()
    places.change(DeploymentEntry(name="d", phase="ready"), {"r": ReplicaPlaces(replica_entry(), engine)})
    places.try_take("a")

    meters.measure({"d": places})

    assert 'pilothouse_inflight_requests{deployment="d"} 1' in Registry.merged([meters.dump()]).render()
