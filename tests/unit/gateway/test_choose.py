"""Deployments are asked in an order: one that is drawn, the others of the split, the fallbacks."""

from collections import Counter
from random import Random

import pytest

from gateway_rig import PEPPER, endpoint_entry, replica_entry, snapshot
from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.snapshot import Route
from pilothouse.gateway.authenticate import Authenticator
from pilothouse.gateway.choose import choose
from pilothouse.gateway.state import GatewayState
from watched_engine import WatchedEngine

DRAW = Random(7).random


class FakeCall:
    def __init__(self, subject_hash: str = "") -> None:
        self.subject_hash = subject_hash


def state_of(*routes: Route, **more: object) -> GatewayState:
    """`light`, `heavy` and `spare` are known."""
    state = GatewayState(Authenticator(PEPPER), lambda _: WatchedEngine(), lambda _: None, lambda *_: None)
    known = [replica_entry(f"{name}-0", name) for name in ("light", "heavy", "spare")]
    state.apply(snapshot(*known, endpoints=(endpoint_entry("chat", routes=routes, **more),)))
    return state


def chosen(state: GatewayState, *, subject: str = "", draw=DRAW) -> list[str]:
    order = choose(state.routes["chat"], FakeCall(subject), draw)
    return [places.deployment for places in order]


def test_routes_are_drawn_by_weight_and_the_others_stand_in():
    state = state_of(Route("light", 10), Route("heavy", 90))

    orders = Counter(tuple(chosen(state)) for _ in range(2000))

    assert set(orders) == {("light", "heavy"), ("heavy", "light")}
    assert 130 < orders["light", "heavy"] < 280


def test_fallbacks_come_last_in_their_order():
    state = state_of(Route("light"), fallback=("spare", "heavy"))

    assert chosen(state) == ["light", "spare", "heavy"]


def test_what_is_not_known_here_or_has_no_weight_is_left_out():
    state = state_of(Route("light", 10), Route("unknown", 99), Route("heavy", 0), fallback=("elsewhere",))

    assert chosen(state) == ["light"]
    assert state.routes["chat"].only is state.places["light"]


def test_only_a_fallback_is_better_than_nothing():
    assert chosen(state_of(Route("unknown"), fallback=("spare",))) == ["spare"]


def test_a_subject_stays_where_it_is_when_asked_for():
    state = state_of(Route("light", 50), Route("heavy", 50), sticky="subject")

    firsts = {
        subject: {chosen(state, subject=subject)[0] for _ in range(20)}
        for subject in (f"{n:032x}" for n in range(40))
    }

    assert all(len(first) == 1 for first in firsts.values())
    assert set.union(*firsts.values()) == {"light", "heavy"}


def test_without_a_subject_or_without_asking_nobody_stays():
    split = (Route("light", 50), Route("heavy", 50))

    assert len({chosen(state_of(*split, sticky="subject"))[0] for _ in range(60)}) == 2
    assert len({chosen(state_of(*split), subject="ann")[0] for _ in range(60)}) == 2


@pytest.mark.parametrize("routes", [(), (Route("unknown"),)])
def test_an_endpoint_without_a_known_deployment_is_not_ready(routes):
    with pytest.raises(EngineUnavailable, match="chat") as caught:
        chosen(state_of(*routes))

    assert caught.value.retry_after_s
