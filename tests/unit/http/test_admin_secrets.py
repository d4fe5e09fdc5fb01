"""Secrets over the admin API: who may set them, what is told, and that no value ever comes back."""

from pathlib import Path
from typing import Any

import pytest

from admin_house import AdminHouse
from pilothouse.domain.spec import DeploymentSpec, Spec

VALUE = "sk-very-secret-value"


@pytest.fixture
async def house(tmp_path: Path) -> AdminHouse:
    return await AdminHouse(tmp_path).furnish()


async def call(house: AdminHouse, who: tuple[str, str], method: str, name: str = "", **body: Any) -> Any:
    async with house.client(headers=house.auth(*who)) as client:
        path = f"/admin/v1/secrets/{name}".rstrip("/")
        return await client.request(method, path, **({"json": body} if body else {}))


ADMIN, OPERATOR = ("red", "admin"), ("red", "operator")


async def test_what_is_set_is_listed_without_its_value_and_told_without_it(house: AdminHouse) -> None:
    made = await call(house, ADMIN, "PUT", "cloud", value=VALUE, host="a.example")
    listed = await call(house, ADMIN, "GET")

    assert made.status_code == 200, made.text
    assert [(one["name"], one["host"]) for one in listed.json()["items"]] == [("cloud", "a.example")]
    assert house.secrets_told == ["cloud"]
    (event,) = house.happened
    assert (event.kind, event.name, event.reason) == ("secret", "cloud", "set")
    assert house.key_ids[ADMIN] in event.message
    shown = f"{made.text}{listed.text}{event}{house.log_text.getvalue()}{house.secrets.sealed}"
    assert VALUE not in shown


async def test_at_rest_there_is_no_byte_of_it(house: AdminHouse) -> None:
    await call(house, ADMIN, "PUT", "cloud", value=VALUE, host="a.example")

    rows = await house.store(lambda unit: unit.secrets.all())

    assert len(rows) == 1
    assert VALUE.encode() not in rows[0].sealed


async def test_a_deployment_elsewhere_is_refused_and_its_own_host_is_not(house: AdminHouse) -> None:
    await call(house, ADMIN, "PUT", "cloud", value=VALUE, host="a.example")

    async def declare(host: str) -> Any:
        options = {"base_url": f"https://{host}/v1", "secret": "cloud"}
        spec = {"deployments": {"d": {"engine": "openai", "engine_options": options}}}
        async with house.client(headers=house.auth(*ADMIN)) as client:
            return await client.put("/admin/v1/spec", json=spec, headers={"if-match": "*"})

    assert (await declare("a.example")).status_code == 200
    refused = await declare("evil.example")
    assert refused.status_code == 400
    assert "evil.example" in refused.json()["error"]["message"]


async def test_one_in_use_is_neither_removed_nor_sent_elsewhere(house: AdminHouse) -> None:
    await call(house, ADMIN, "PUT", "cloud", value=VALUE, host="a.example")
    options = {"base_url": "https://a.example/v1", "secret": "cloud"}
    house.spec = Spec(deployments={"d": DeploymentSpec(engine="openai", engine_options=options)})

    assert (await call(house, ADMIN, "DELETE", "cloud")).status_code == 409
    assert (await call(house, ADMIN, "PUT", "cloud", value="w", host="b.example")).status_code == 409
    changed = await call(house, ADMIN, "PUT", "cloud", value="w", host="a.example")
    assert changed.status_code == 200
    house.spec = Spec()
    assert (await call(house, ADMIN, "DELETE", "cloud")).status_code == 200
    assert (await call(house, ADMIN, "DELETE", "cloud")).status_code == 404


@pytest.mark.parametrize(
    ("who", "team", "status"),
    [
        (ADMIN, "", 200),
        (ADMIN, "blue", 200),
        (ADMIN, "none", 404),
        (OPERATOR, "red", 200),
        (OPERATOR, "blue", 404),
        (OPERATOR, "", 404),
        (("red", "developer"), "red", 403),
        (("red", "auditor"), "red", 403),
    ],
)
async def test_who_may_set_which(house: AdminHouse, who: tuple[str, str], team: str, status: int) -> None:
    assert (
        await call(house, who, "PUT", "s", value=VALUE, host="a.example", team=team)
    ).status_code == status


async def test_another_teams_secret_is_neither_seen_nor_replaced(house: AdminHouse) -> None:
    await call(house, ("blue", "operator"), "PUT", "s", value=VALUE, host="a.example", team="blue")

    assert (await call(house, OPERATOR, "GET")).json()["items"] == []
    assert (
        await call(house, OPERATOR, "PUT", "s", value="x", host="a.example", team="red")
    ).status_code == 404
    assert (await call(house, OPERATOR, "DELETE", "s")).status_code == 404
