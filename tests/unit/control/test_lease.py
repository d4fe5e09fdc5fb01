from hypothesis import given, settings
from hypothesis import strategies as st

from control_fakes import TickingClock
from pilothouse.control.lease import PATIENCE_S, SlotLeases
from pilothouse.domain.snapshot import WorkerHello, WorkerReport


def hello(worker: str, *, pid: int = 1, **slots: tuple[int, ...]) -> WorkerHello:
    return WorkerHello(worker=worker, pid=pid, slots=slots)


def test_workers_share_the_slots_of_a_replica():
    leases = SlotLeases(2, TickingClock())
    for name in ("a", "b"):
        leases.enter(hello(name))

    assert leases.slots("a", "r", 5) == (0, 1, 2)
    assert leases.slots("b", "r", 5) == (3, 4)


def test_the_first_worker_does_not_take_the_share_of_one_that_is_still_to_come():
    leases = SlotLeases(2, TickingClock())
    leases.enter(hello("a"))

    assert leases.slots("a", "r", 4) == (0, 1)


def test_slots_are_free_again_when_their_worker_is_gone():
    leases = SlotLeases(1, TickingClock())
    leases.enter(hello("a"))
    leases.slots("a", "r", 2)
    leases.enter(hello("b"))
    assert leases.slots("b", "r", 2) == ()

    leases.leave("a")

    assert leases.slots("b", "r", 2) == (0, 1)


def test_after_a_restart_only_claims_are_confirmed_until_all_had_time_to_come_back():
    clock = TickingClock()
    leases = SlotLeases(2, clock)
    leases.adopt(["r"])
    leases.open()
    leases.enter(hello("new"))
    assert leases.slots("new", "r", 4) == ()

    leases.enter(hello("old", r=(0, 1)))
    assert leases.slots("old", "r", 4) == (0, 1)
    clock.time += PATIENCE_S

    assert leases.slots("new", "r", 4) == (2, 3)


def test_nobody_is_waited_for_once_all_workers_that_live_came_back():
    leases = SlotLeases(2, TickingClock())
    leases.adopt(["r"])
    leases.open()
    leases.enter(hello("new", pid=7))

    assert not leases.settle([7, 8])
    assert leases.slots("new", "r", 4) == ()
    leases.enter(hello("old", pid=8, r=(0, 1)))
    assert leases.settle([7, 8])

    assert leases.slots("old", "r", 4) == (0, 1)
    assert leases.slots("new", "r", 4) == (2, 3)


def test_who_was_found_settled_stays_so_when_workers_begin_to_come():
    leases = SlotLeases(1, TickingClock())
    leases.adopt(["r"])
    assert leases.settle([])

    leases.open()

    assert leases.is_settled


def test_replicas_that_this_controller_started_are_granted_at_once():
    leases = SlotLeases(1, TickingClock())
    leases.adopt(["other"])
    leases.enter(hello("a"))

    assert leases.slots("a", "r", 2) == (0, 1)


def test_a_claim_is_reserved_from_the_first_moment():
    clock = TickingClock()
    leases = SlotLeases(2, clock)
    leases.adopt(["r"])
    leases.open()
    leases.enter(hello("old", r=(0, 1)))
    leases.enter(hello("new"))
    clock.time += PATIENCE_S

    assert leases.slots("new", "r", 4) == (2, 3)
    assert leases.slots("old", "r", 4) == (0, 1)


def test_the_time_for_claims_begins_when_workers_can_come():
    clock = TickingClock()
    leases = SlotLeases(1, clock)
    leases.adopt(["r"])
    clock.time += 10 * PATIENCE_S
    assert not leases.is_settled

    leases.open()
    assert not leases.is_settled
    clock.time += PATIENCE_S

    assert leases.is_settled


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "leave", "view", "wait", "restart"]), st.sampled_from(["a", "b", "c"])
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(workers=st.integers(1, 3), total=st.integers(0, 6), steps=STEPS)
def test_no_slot_is_ever_in_two_hands(workers, total, steps):
    """What workers believe to hold, through restarts of the controller in any order of coming back."""
    clock = TickingClock()
    leases = SlotLeases(workers, clock)
    believes: dict[str, tuple[int, ...]] = {}
    connected: set[str] = set()
    for step, name in steps:
        if step == "enter" and name not in believes:
            believes[name] = ()
        if step == "leave":
            leases.leave(name)
            connected.discard(name)
            believes.pop(name, None)
        elif step == "wait":
            for back in sorted(believes.keys() - connected):  # all are back well within the patience
                leases.enter(hello(back, r=believes[back]))
                connected.add(back)
            clock.time += PATIENCE_S
        elif step == "restart":
            leases = SlotLeases(workers, clock)
            leases.adopt(["r"])
            leases.open()
            connected.clear()
        elif name in believes:
            leases.enter(hello(name, r=believes[name]))
            connected.add(name)
            believes[name] = leases.slots(name, "r", total)

        held = [slot for slots in believes.values() for slot in slots]
        assert len(held) == len(set(held))


def report(worker: str, **slots: tuple[int, ...]) -> WorkerReport:
    return WorkerReport(worker=worker, pid=1, time=0.0, revision=1, is_leaving=True, slots=slots)


def test_what_a_leaving_worker_gives_up_goes_to_its_successor_and_the_rest_stays_its_own():
    leases = SlotLeases(1, TickingClock())
    leases.enter(hello("old"))
    leases.slots("old", "r", 4)
    leases.enter(hello("new"))
    assert leases.slots("new", "r", 4) == ()

    assert leases.hear(report("old", r=(2,)))

    assert leases.slots("new", "r", 4) == (0, 1, 3)
    assert leases.slots("old", "r", 4) == (2,)


def test_a_report_that_gives_nothing_up_changes_nothing():
    leases = SlotLeases(1, TickingClock())
    leases.enter(hello("old"))
    leases.slots("old", "r", 2)
    leases.hear(report("old", r=(0, 1)))

    assert not leases.hear(report("old", r=(0, 1)))
    assert not leases.hear(report("stranger"))
    assert leases.slots("old", "r", 2) == (0, 1)


def test_requests_at_once_are_divided_by_the_workers_and_each_has_one():
    leases = SlotLeases(4, TickingClock())
    for name in ("a", "b", "c", "d"):
        leases.enter(hello(name))

    assert [leases.part(name, 10) for name in "abcd"] == [3, 3, 2, 2]
    assert [leases.part(name, 2) for name in "abcd"] == [1, 1, 1, 1]


def test_who_leaves_keeps_his_part_for_those_who_wait_and_the_others_have_theirs_without_him():
    leases = SlotLeases(1, TickingClock())
    for name in ("old", "new"):
        leases.enter(hello(name))
    leases.hear(report("old"))

    assert (leases.part("old", 8), leases.part("new", 8)) == (8, 8)
