"""The queue of a deployment: how service is divided when requests take different times."""

from collections import Counter
from types import SimpleNamespace

import pytest

from pilothouse.domain.snapshot import ReplicaEntry
from pilothouse.gateway import waiting as waiting_file
from pilothouse.gateway.place import ReplicaPlaces
from pilothouse.gateway.waiting import Terms, Waiter, Waiting
from watched_engine import WatchedEngine


@pytest.mark.parametrize("weight", [1.0, 3.0])
async def test_service_is_divided_by_weight_however_long_a_request_takes(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One team's requests take three times as long: time is shared by weight, not turns."""
    now = 1.0
    monkeypatch.setattr(waiting_file, "time", SimpleNamespace(monotonic=lambda: now))
    takes_s = {"long": 3.0, "short": 1.0}
    terms = Terms(queue_size=10, weights={"long": weight})
    waiting = Waiting("d")
    entry = ReplicaEntry(
        name="d-0", deployment="d", engine="scripted", address="scripted:d-0", max_inflight=1
    )
    held_s: Counter[str] = Counter()
    for team in takes_s:
        waiting.enter(Waiter(team, terms, 0), "normal")

    for _ in range(2000):
        waiter = waiting.queue.pop()
        assert waiter is not None
        place = ReplicaPlaces(entry, WatchedEngine()).take(waiter.team)
        waiting.serve(waiter, place)
        waiting.enter(Waiter(waiter.team, terms, 0), "normal")
        now += takes_s[waiter.team]
        held_s[waiter.team] += int(takes_s[waiter.team])
        waiting.charge(place)

    assert held_s["long"] / held_s["short"] == pytest.approx(weight, rel=0.1)
