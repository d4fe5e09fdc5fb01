"""Service is divided between tenants, whoever has how many waiting."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.fairness import PRIORITIES, FairQueue

TENANTS = st.sampled_from("abcd")


def popped(queue: FairQueue[str], count: int) -> str:
    return "".join(queue.pop() or "" for _ in range(count))


def test_who_has_many_waiting_gets_no_more_turns_than_who_has_few():
    queue: FairQueue[str] = FairQueue()
    for _ in range(6):
        queue.push("flood", "f")
    for _ in range(2):
        queue.push("other", "o")

    assert popped(queue, 8) in ("fofoffff", "offoffff")


def test_coming_back_at_once_gains_nothing():
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.push("flood", "f")
    queue.push("single", "s")

    served = Counter()
    for _ in range(60):
        item = queue.pop()
        served[item] += 1
        if item == "s":
            queue.push("single", "s")

    assert 29 <= served["s"] <= 31


def test_turns_that_were_not_used_are_not_saved_up():
    queue: FairQueue[str] = FairQueue()
    for _ in range(50):
        queue.push("a", "a")
    popped(queue, 30)
    for _ in range(10):
        queue.push("late", "l")

    assert popped(queue, 10).count("l") <= 6


def test_a_heavier_tenant_gets_its_share():
    queue: FairQueue[str] = FairQueue()
    for _ in range(40):
        queue.push("big", "b", weight=3.0)
        queue.push("small", "s")

    assert 29 <= popped(queue, 40).count("b") <= 31


def test_who_asks_for_long_answers_gets_fewer_turns():
    queue: FairQueue[str] = FairQueue()
    for _ in range(60):
        queue.push("long", "l")
        queue.push("short", "s")

    served = Counter()
    for _ in range(60):
        item = queue.pop()
        served[item] += 1
        # The usual is 2 units, of which `pop` charged one turn.
        queue.charge("long" if item == "l" else "short", 3 / 2 - 1 if item == "l" else 1 / 2 - 1)

    assert 2.5 < served["s"] / served["l"] < 3.5


def test_what_is_charged_to_one_who_has_nothing_waiting_counts_when_he_comes_back():
    queue: FairQueue[str] = FairQueue()
    queue.push("a", "a")
    for _ in range(20):
        queue.push("b", "b")
    while queue.pop() != "a":
        pass
    queue.charge("a", 5.0)
    queue.push("a", "a")

    assert "a" not in popped(queue, 4)


def test_urgent_goes_first_within_its_tenant_and_takes_nothing_from_others():
    queue: FairQueue[str] = FairQueue()
    for name in ("a1", "a2"):
        queue.push("a", name)
    queue.push("a", "urgent", priority="high")
    for name in ("b1", "b2", "b3"):
        queue.push("b", name)

    order = [queue.pop() for _ in range(6)]

    assert order.index("urgent") < order.index("a1")
    assert sum(name.startswith("b") for name in order[:4]) == 2


def test_low_priority_waits_until_nobody_else_does():
    queue: FairQueue[str] = FairQueue()
    queue.push("batch", "l", priority="low")
    for tenant in "abc":
        queue.push(tenant, "x")

    assert popped(queue, 4) == "xxxl"


def test_a_full_queue_takes_from_the_greedy_for_who_has_less():
    queue: FairQueue[str] = FairQueue()
    for name in ("f1", "f2", "f3"):
        queue.push("flood", name)

    assert queue.yield_to("flood", "normal") is None
    assert queue.yield_to("other", "normal") == "f3"
    assert len(queue) == 2


def test_low_priority_makes_room_first_and_never_for_its_like_with_as_many():
    queue: FairQueue[str] = FairQueue()
    queue.push("a", "live")
    queue.push("b", "batch", priority="low")

    assert queue.yield_to("c", "low") is None
    assert queue.yield_to("c", "normal") == "batch"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), TENANTS, st.sampled_from(PRIORITIES)),
            st.tuples(st.just("pop"), TENANTS, st.just("")),
            st.tuples(st.just("remove"), TENANTS, st.just("")),
            st.tuples(st.just("yield"), TENANTS, st.sampled_from(PRIORITIES)),
        ),
        max_size=200,
    )
)
def test_nothing_is_lost_and_nothing_comes_twice(steps):
    queue: FairQueue[int] = FairQueue()
    inside: dict[int, str] = {}
    for number, (what, tenant, priority) in enumerate(steps):
        if what == "push":
            queue.push(tenant, number, priority=priority)
            inside[number] = tenant
        elif what == "pop":
            item = queue.pop()
            assert (item is None) == (not inside)
            inside.pop(item, None)
        elif what == "yield":
            item = queue.yield_to(tenant, priority)
            assert item is None or item in inside
            inside.pop(item, None)
        elif inside:
            item = next(iter(inside))
            assert queue.remove(inside[item], item)
            assert not queue.remove(inside.pop(item), item)
        assert len(queue) == len(inside)

    assert sorted(queue.drain()) == sorted(inside)
    assert len(queue) == 0
