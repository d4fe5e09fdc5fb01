from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain.lease import grant, share


def test_the_remainder_goes_to_the_lowest_ranks():
    assert [share(5, 2, rank) for rank in range(2)] == [3, 2]
    assert [share(1, 3, rank) for rank in range(3)] == [1, 0, 0]


@given(st.integers(0, 64), st.integers(1, 16))
def test_shares_add_up_to_all_slots(total, workers):
    assert sum(share(total, workers, rank) for rank in range(workers)) == total


def test_a_worker_keeps_what_it_claims_even_beyond_its_share():
    assert grant(4, {}, worker="a", claimed=(1, 2, 3), size=2) == (1, 2, 3)


def test_a_claim_on_a_slot_of_another_worker_is_refused():
    assert grant(4, {"b": (0, 1)}, worker="a", claimed=(1, 2), size=2) == (2, 3)


def test_a_claim_on_a_slot_that_does_not_exist_is_refused():
    assert grant(2, {}, worker="a", claimed=(-1, 7), size=1) == (0,)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave", "lose"]),
        st.sampled_from(["a", "b", "c", "d"]),
        st.lists(st.integers(-1, 9), max_size=5),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(total=st.integers(0, 8), workers=st.integers(1, 4), steps=STEPS)
def test_two_workers_never_hold_the_same_slot(total, workers, steps):
    """Whatever workers claim, in whatever order they come, go, or are forgotten with the controller."""
    held: dict[str, tuple[int, ...]] = {}
    for step, worker, claimed in steps:
        if step == "join":
            size = share(total, workers, sorted({*held, worker}).index(worker) % workers)
            held[worker] = grant(total, held, worker=worker, claimed=claimed, size=size)
        elif step == "leave":
            held.pop(worker, None)
        else:  # a new controller: all come back with honest claims, in any order
            claims, held = held, {}
            for name in sorted(claims, reverse=bool(claimed)):
                held[name] = grant(total, held, worker=name, claimed=claims[name], size=total)

        slots = [slot for granted in held.values() for slot in granted]
        assert len(slots) == len(set(slots))
        assert set(slots) <= set(range(total))
