"""Each record is counted once, under labels that nobody can invent."""

from gateway_rig import replica_entry
from pilothouse.domain.snapshot import DeploymentEntry
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway.call import Call
from pilothouse.gateway.meter import Meters
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import ReplicaPlaces
from pilothouse.kit.http1.message import Request
from pilothouse.kit.metrics import Registry
from pilothouse.wire.openai.dialect import CHAT
from watched_engine import WatchedEngine

RECEIVED_NS = 1_000
MS = 1_000_000


def a_call(*, code: str = "ok", usage: Usage = Usage(10, 5, 4)) -> Call:  # noqa: B008 - frozen
    """Half a second long; its first token came after a tenth of one."""
    request = Request("POST", "/v1/chat/completions", "", {}, "127.0.0.1")
    request.received_ns = RECEIVED_NS
    call = Call(request, None, CHAT)
    call.deployment, call.code, call.usage = "d", code, usage
    call.first_token_ns = RECEIVED_NS + 100 * MS
    call.overhead_us = 300
    return call


def count(meters: Meters, call: Call, endpoint: str = "chat") -> None:
    meters.count(call, endpoint=endpoint, team="a", ended_ns=RECEIVED_NS + 500 * MS)


def text_of(*calls: tuple[str, Call], known: frozenset[str] = frozenset({"chat"})) -> str:
    """What is told of calls of endpoints."""
    meters = Meters(lambda name: name in known)
    for endpoint, call in calls:
        count(meters, call, endpoint)
    return Registry.merged([meters.dump()]).render()


def test_a_request_counts_in_each_family():
    text = text_of(("chat", a_call()))

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
    text = text_of(*((f"invented{n}", a_call(code="model_not_found")) for n in range(50)))

    assert "invented" not in text
    assert 'pilothouse_requests_total{endpoint="",deployment="d",code="model_not_found"} 50' in text


def test_every_record_counts_whenever_it_is_looked():
    meters = Meters(lambda _: True)
    for n in range(1000):
        count(meters, a_call())
        if n % 300 == 0:
            meters.dump()

    text = Registry.merged([meters.dump()]).render()

    assert 'code="ok"} 1000' in text


def test_output_counts_where_the_engine_gave_no_prompt_tokens():
    """An engine that says no usage: pieces were counted, and must not vanish."""
    assert 'kind="output"} 5' in text_of(("chat", a_call(usage=Usage(0, 5))))


def test_how_full_deployments_are_is_told():
    meters, places = Meters(lambda _: True), Places("d")
    engine = WatchedEngine()
    places.change(DeploymentEntry(name="d", phase="ready"), {"r": ReplicaPlaces(replica_entry(), engine)})
    places.try_take("a")

    meters.measure({"d": places})

    assert 'pilothouse_inflight_requests{deployment="d"} 1' in Registry.merged([meters.dump()]).render()
