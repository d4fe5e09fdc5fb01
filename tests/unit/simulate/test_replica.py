"""The virtual engine against one that computes every step."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pilothouse.simulate.replica import VirtualReplica
from pilothouse.simulate.scenario import EngineModel
from pilothouse.simulate.traffic import Request

MODEL = EngineModel(slots=4, batch_tokens=64, step_ms=10, prefill_ms=8, decode_ms=6, request_ms=0)


def asked(prompt: int, output: int) -> Request:
    return Request("t", 0.0, prompt, output, 0)


def ends(replica: VirtualReplica, requests: list[Request]) -> dict[Request, float]:
    """When each request ends, all of them begun at 0."""
    for request in requests:
        replica.begin(request, 0, 0.0)
    found: dict[Request, float] = {}
    while len(found) < len(requests):
        now = replica.due()
        for done in replica.happened(now)[1]:
            found[done] = now
    return found


def stepped(requests: list[Request], model: EngineModel) -> list[tuple[float, float]]:
    """First tokens and ends by llama.cpp's rule: a token for each answer, then prompts in turn."""
    now, left = 0.0, [request.prompt for request in requests]
    made, first = [0] * len(requests), [0.0] * len(requests)
    end = [0.0] * len(requests)
    here = 1  # the first one begins at once, and the others meet a step under way
    while any(not e for e in end):
        writing = [i for i, n in enumerate(left) if not n and not end[i]]
        room, read, ready = model.batch_tokens - len(writing), 0, []
        for i, n in enumerate(left[:here]):
            if n and room:
                taken = min(n, room)
                left[i], room, read = n - taken, room - taken, read + taken
                if not left[i]:
                    ready.append(i)
        here = len(requests)
        now += (model.step_ms + model.prefill_ms * read + model.decode_ms * len(writing)) / 1000
        for i in [*writing, *ready]:
            made[i] += 1
            first[i] = first[i] or now
            if made[i] == requests[i].output:
                end[i] = now
    return list(zip(first, end, strict=True))


def test_one_request_takes_its_prompt_and_then_its_tokens() -> None:
    request = asked(640, 11)

    done = ends(VirtualReplica("a", 0, MODEL, 0.0), [request])[request]

    assert abs(request.first_at - 10 * (10 + 8 * 64) / 1000) < 1e-9
    assert abs(done - (request.first_at + 10 * 16 / 1000)) < 1e-9


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 300)), min_size=1, max_size=4))
def test_it_ends_when_an_engine_that_computes_each_step_does(sizes: list[tuple[int, int]]) -> None:
    requests = [asked(prompt, output) for prompt, output in sizes]

    ended = ends(VirtualReplica("a", 0, MODEL, 0.0), requests)

    for request, (first, end) in zip(requests, stepped(requests, MODEL), strict=True):
        assert abs(request.first_at - first) < 1e-6
        assert abs(ended[request] - end) < 1e-6


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 50)), min_size=1, max_size=20))
def test_places_come_back(sizes: list[tuple[int, int]]) -> None:
    model = EngineModel(slots=20)
    replica = VirtualReplica("a", 0, model, 0.0)

    ends(replica, [asked(prompt, output) for prompt, output in sizes])

    assert (replica.free, replica.load) == (20, 0)


def test_a_kept_prefix_is_not_computed_again() -> None:
    replica = VirtualReplica("a", 0, EngineModel(prefixes=1, request_ms=0), 0.0)
    times = []
    for _ in range(2):
        request = Request("t", 0.0, 1000, 1, 7)
        began = max(0.0, times[-1] if times else 0.0)
        replica.begin(request, 900, began)
        while request.first_at < 0:
            replica.happened(replica.due())
        times.append(request.first_at)

    assert times[1] - times[0] < 0.15 * times[0]


def test_a_replica_that_crashes_returns_all_that_it_had() -> None:
    replica = VirtualReplica("a", 0, MODEL, 0.0)
    requests = [asked(10, 10), asked(5000, 10)]
    for request in requests:
        replica.begin(request, 0, 0.0)
    replica.happened(replica.due())

    assert set(replica.end(1.0)) == set(requests)
    assert replica.free == 0


def test_waiting_prompts_are_read_as_they_came_or_by_their_slot():
    def later_one_first(model: EngineModel) -> bool:
        replica = VirtualReplica("r", 0, model, 0.0)
        brief, long, late = asked(10, 1), asked(500, 2), asked(100, 2)
        replica.begin(brief, 0, 0.0)
        replica.begin(long, 0, 0.0)
        while not replica.happened(replica.due())[1]:
            pass
        replica.begin(late, 0, replica.due() - 1e-6)  # it has the place of the brief one
        while replica.load:
            replica.happened(replica.due())
        return late.first_at < long.first_at

    two = replace(MODEL, slots=2)
    assert not later_one_first(two)
    assert later_one_first(replace(two, reads="by_slot"))
