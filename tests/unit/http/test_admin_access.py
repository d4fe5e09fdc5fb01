"""Who gets in: keys, roles, tenants, origins; and that no route is without a policy."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from litestar import get

from admin_house import ROLES, AdminHouse
from pilothouse.domain.policy import ACTIONS, GRANTS
from pilothouse.http.access import PUBLIC
from pilothouse.http.control_app import build_app

BODIES: dict[str, Any] = {
    "/admin/v1/keys": {"team": "red"},
    "/admin/v1/teams": {"name": "green"},
    "/admin/v1/models": {"source": "pypi:a==1"},
}


@pytest.fixture
async def house(tmp_path: Path) -> AdminHouse:
    made = await AdminHouse(tmp_path, host="0.0.0.0").furnish()
    made.models.go_on.set()
    return made


def routes(house: AdminHouse) -> list[tuple[str, str, str]]:
    """Method, path (with something in its place holders) and action of every route there is."""
    found = []
    for route in house.app.routes:
        path = route.path_format
        for name, value in (
            ("key_id", house.key_ids["red", "developer"]),
            ("record_id", "req_red0"),
            ("name", "smollm2-abc-0"),
            ("rest", "x"),
        ):
            path = path.replace("{" + name + "}", value)
        for handler in route.route_handlers:  # type: ignore[union-attr]
            found += [
                (method, path, handler.opt["action"])
                for method in sorted(handler.http_methods - {"OPTIONS"})
                if "action" in handler.opt
            ]
    return found


async def send(client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    body = BODIES.get(path) if method == "POST" else None
    return await client.request(method, path, json=body, headers=headers)


def assert_is_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"]
    assert response.headers["x-request-id"].startswith("req_")
    assert "Traceback" not in response.text


async def test_every_route_declares_an_action_of_the_policy(house: AdminHouse):
    found = routes(house)

    assert len(found) > 60
    assert {action for _, _, action in found} <= ACTIONS | {PUBLIC}
    assert {path for _, path, action in found if action == PUBLIC} == {"/livez", "/admin/openapi.json"}


@pytest.mark.parametrize("opt", [{}, {"action": "keys.steal"}, {"action": None}])
async def test_a_route_without_a_known_action_does_not_start(house: AdminHouse, opt: dict[str, object]):
    @get("/admin/v1/open-door", opt=opt)
    async def open_door() -> str:
        return "come in"

    with pytest.raises(ValueError, match="/admin/v1/open-door declares no policy action"):
        build_app(house.plane, more_routes=[open_door])


async def test_no_route_but_the_public_ones_answers_without_a_key(house: AdminHouse):
    async with house.client() as client:
        for method, path, action in routes(house):
            response = await send(client, method, path, {})
            if action == PUBLIC:
                assert response.status_code == 200
            else:
                assert_is_error(response, 401, "invalid_api_key")
                assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_reaches_exactly_what_it_is_granted(house: AdminHouse, role: str):
    async with house.client() as client:
        # Its own key last: revoking it ends the test's way in.
        for method, path, action in sorted(routes(house), key=lambda found: found[0] == "DELETE"):
            if action == PUBLIC:
                continue
            response = await send(client, method, path, house.auth("red", role))
            if action in GRANTS[role]:
                assert response.status_code != 403, (method, path, response.text)
            else:
                assert_is_error(response, 403, "permission_denied")


@pytest.mark.parametrize("role", [role for role in ROLES if role != "admin"])
async def test_another_teams_things_look_as_if_they_were_not_there(house: AdminHouse, role: str):
    blue_key = house.key_ids["blue", "developer"]
    paths = [
        ("DELETE", f"/admin/v1/keys/{blue_key}", "keys.revoke"),
        ("POST", f"/admin/v1/keys/{blue_key}/rotate", "keys.rotate"),
        ("GET", "/admin/v1/keys?team=blue", "keys.read"),
        ("GET", "/admin/v1/records/req_blue0", "records.read"),
        ("GET", "/admin/v1/records?team=blue", "records.read"),
        ("GET", "/admin/v1/usage?team=blue", "usage.read"),
    ]
    async with house.client() as client:
        for method, path, action in paths:
            response = await client.request(method, path, headers=house.auth("red", role))
            if action in GRANTS[role]:
                assert_is_error(response, 404, "not_found")
                absent = (
                    path.replace(blue_key, "a" * 13)
                    .replace("req_blue0", "req_none")
                    .replace("=blue", "=none")
                )
                twin = await client.request(method, absent, headers=house.auth("red", role))
                shown = [text.replace("blue", "").replace("none", "") for text in (response.text, twin.text)]
                assert shown[0].replace(blue_key, "").replace("req_0", "req_") == shown[1].replace(
                    "a" * 13, ""
                )
            else:
                assert response.status_code == 403


@pytest.mark.parametrize("role", [role for role in ROLES if role != "admin"])
async def test_lists_show_only_the_own_team(house: AdminHouse, role: str):
    async with house.client() as client:
        for path in ("keys", "records", "teams"):
            response = await client.get(f"/admin/v1/{path}", headers=house.auth("red", role))
            if response.status_code != 403:
                assert "blue" not in response.text
                assert "red" in response.text


async def test_an_admin_sees_all_teams(house: AdminHouse):
    async with house.client() as client:
        for path in ("keys", "records", "teams", "usage"):
            response = await client.get(f"/admin/v1/{path}", headers=house.auth("red", "admin"))
            assert "blue" in response.text
            assert "red" in response.text


async def test_an_operator_makes_no_key_for_another_team_and_none_stronger_than_his_own(house: AdminHouse):
    headers = house.auth("red", "operator")
    async with house.client() as client:
        for body, status in (
            ({"team": "red", "role": "developer"}, 201),
            ({"team": "red", "role": "admin"}, 403),
            ({"team": "red", "role": "auditor"}, 201),
            ({"team": "blue", "role": "developer"}, 404),
        ):
            response = await client.post("/admin/v1/keys", json=body, headers=headers)
            assert response.status_code == status, response.text

        taken = await client.post(f"/admin/v1/keys/{house.key_ids['red', 'admin']}/rotate", headers=headers)
        assert taken.status_code == 403


async def test_a_key_in_x_api_key_is_as_good(house: AdminHouse):
    async with house.client() as client:
        response = await client.get("/admin/v1/keys", headers={"x-api-key": house.keys["red", "admin"]})

    assert response.status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"ph_",
        b"ph_abcdefgh_" + b"a" * 52 + b"_00000000",
        b"ph_' OR '1'='1_" + b"a" * 52 + b"_00000000",
        b"ph_abcdefgh_\x00" + b"a" * 51 + b"_00000000",
        b"ph_" + b"a" * 1_000_000,
        b"\xff\xfe",
    ],
)
async def test_a_wrong_key_is_401_and_costs_no_transaction(house: AdminHouse, text: bytes):
    before = house.store.transactions
    async with house.client() as client:
        for headers in ([(b"authorization", b"Bearer " + text)], [(b"x-api-key", text)]):
            assert_is_error(await client.get("/admin/v1/keys", headers=headers), 401, "invalid_api_key")

    assert house.store.transactions == before


@given(value=st.binary(max_size=300).filter(lambda text: b"\r" not in text and b"\n" not in text))
@example(value=b"Bearer")
@example(value=b"Basic YTpi")
@example(value=b"bearer  \t ")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_authorization_header_gets_in_or_breaks_anything(house: AdminHouse, value: bytes):
    async with house.client() as client:
        response = await client.get("/admin/v1/keys", headers=[(b"authorization", value)])

    assert_is_error(response, 401, "invalid_api_key")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://[bad"},
        {"sec-fetch-site": "cross-site"},
    ],
)
async def test_pages_of_other_sites_are_refused_even_with_a_key(house: AdminHouse, headers: dict[str, str]):
    async with house.client() as client:
        response = await client.get("/admin/v1/keys", headers={**house.auth("red", "admin"), **headers})

    assert_is_error(response, 403, "permission_denied")


async def test_our_own_page_is_let_in(house: AdminHouse):
    headers = {"origin": "http://127.0.0.1:8420", "sec-fetch-site": "same-origin"}
    async with house.client() as client:
        response = await client.get("/admin/v1/keys", headers={**house.auth("red", "admin"), **headers})

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("metrics", "host", "asked", "status"),
    [
        ("auto", "127.0.0.1", "127.0.0.1:8420", 200),
        ("auto", "127.0.0.1", "localhost:8420", 200),
        ("auto", "::1", "[::1]:8420", 200),
        ("auto", "127.0.0.1", "rebound.example:8420", 401),
        ("auto", "127.0.0.1", "", 401),
        ("auto", "0.0.0.0", "127.0.0.1:8420", 401),
        ("key", "127.0.0.1", "127.0.0.1:8420", 401),
        ("open", "0.0.0.0", "anything:8420", 200),
    ],
)
async def test_metrics_are_open_to_this_machine_or_when_somebody_said_so(
    tmp_path: Path, metrics: str, host: str, asked: str, status: int
):
    house = await AdminHouse(tmp_path, metrics=metrics, host=host).furnish()
    async with house.client() as client:
        response = await client.get("/metrics", headers={"host": asked})

    assert response.status_code == status


@pytest.mark.parametrize(
    ("client", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("203.0.113.5", 401), ("127.0.0.1, 203.0.113.5", 401)],
)
async def test_a_proxy_on_this_machine_does_not_open_metrics_to_the_world(
    tmp_path: Path, client: str, status: int
):
    house = await AdminHouse(tmp_path).furnish()
    async with house.client() as asking:
        response = await asking.get("/metrics", headers={"x-forwarded-for": client})

    assert response.status_code == status


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 200), ("operator", 200), ("auditor", 200), ("developer", 403)]
)
async def test_closed_metrics_are_for_those_who_watch(house: AdminHouse, role: str, status: int):
    async with house.client() as client:
        response = await client.get("/metrics", headers=house.auth("red", role))

    assert response.status_code == status


async def test_a_key_limited_to_an_endpoint_sees_that_and_nothing_else(house: AdminHouse):
    async with house.client() as client:
        made = await client.post(
            "/admin/v1/keys",
            json={"team": "red", "endpoints": ["smollm2"]},
            headers=house.auth("red", "admin"),
        )
        headers = {"x-api-key": made.json()["key"]}

        endpoints = await client.get("/admin/v1/endpoints", headers=headers)
        records = await client.get("/admin/v1/records", headers=headers)

    assert [item["name"] for item in endpoints.json()["items"]] == ["smollm2"]
    assert_is_error(records, 403, "permission_denied")


async def test_a_revoked_key_is_refused_at_once(house: AdminHouse):
    headers = house.auth("red", "auditor")
    async with house.client() as client:
        assert (await client.get("/admin/v1/keys", headers=headers)).status_code == 200
        await client.delete(
            f"/admin/v1/keys/{house.key_ids['red', 'auditor']}", headers=house.auth("red", "admin")
        )

        assert_is_error(await client.get("/admin/v1/keys", headers=headers), 401, "invalid_api_key")
