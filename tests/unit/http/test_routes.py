"""Which handler a path has, and that none is without a policy."""

from typing import Any

import pytest

from pilothouse.http.routes import Route, Routes

GET = frozenset({"GET"})


async def handler(*_: Any) -> None: ...


def route(policy: str = "key") -> Route:
    return Route(GET, handler, policy)  # type: ignore[arg-type]


def test_an_exact_path_comes_before_a_prefix_and_a_long_prefix_before_a_short_one():
    exact, short, long = route(), route(), route()
    routes = Routes({"/v1/models": exact}, {"/v1/": short, "/v1/models/": long})

    assert routes.find("/v1/models") is exact
    assert routes.find("/v1/models/x") is long
    assert routes.find("/v1/other") is short
    assert routes.find("/v2") is None


@pytest.mark.parametrize("policy", ["", "none", "public"])
@pytest.mark.parametrize("where", ["exact", "prefix"])
def test_a_route_without_a_policy_does_not_start(policy: str, where: str):
    bad = {"/x": route(policy)}

    with pytest.raises(ValueError, match="/x has no policy"):
        Routes(bad if where == "exact" else {}, bad if where == "prefix" else {})
