"""The heaviest deployment that is known here answers."""

import pytest

from gateway_rig import PEPPER, endpoint_entry, replica_entry, snapshot
from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.snapshot import Route
from pilothouse.gateway.authenticate import Authenticator
from pilothouse.gateway.choose import choose
from pilothouse.gateway.permit import Places
from pilothouse.gateway.state import GatewayState
from watched_engine import WatchedEngine


class FakeCall:
    deployment = ""


def chosen(*routes: Route) -> tuple[Places, str]:
    """What is chosen for an endpoint of these routes; `light` and `heavy` are known."""
    state = GatewayState(Authenticator(PEPPER), lambda _: WatchedEngine(), lambda _: None, lambda *_: None)
    known = (replica_entry("l", "light"), replica_entry("h", "heavy"))
    state.apply(snapshot(*known, endpoints=(endpoint_entry("chat", routes=routes),)))
    call = FakeCall()
    return choose(state, state.snapshot.endpoints["chat"], call), call.deployment


def test_the_heaviest_route_that_is_known_is_chosen():
    places, deployment = chosen(Route("light", 10), Route("unknown", 99), Route("heavy", 90))

    assert (places.deployment, deployment) == ("heavy", "heavy")


def test_of_equal_routes_the_first_is_chosen():
    assert chosen(Route("light", 50), Route("heavy", 50))[1] == "light"


@pytest.mark.parametrize("routes", [(), (Route("unknown"),)])
def test_an_endpoint_without_a_known_deployment_is_not_ready(routes):
    with pytest.raises(EngineUnavailable, match="chat") as caught:
        chosen(*routes)

    assert caught.value.retry_after_s
