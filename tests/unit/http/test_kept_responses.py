"""Who may open a kept response: the key that asked it, and those who may read contents."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from admin_house import ROLES, AdminHouse
from pilothouse.domain.record import Content, InferenceRecord
from pilothouse.http import kept_responses
from pilothouse.http.control_app import stand_on
from pilothouse.ports.store import SealedRecord

ID = "resp_" + "a" * 32
PROMPT = {"model": "smollm2", "input": "the prompt"}
PATHS = ("", "/input_items", "/conversation")


@pytest.fixture
async def house(tmp_path: Path) -> AdminHouse:
    """A response that the red developer's key asked for."""
    house = await AdminHouse(tmp_path).furnish()
    record = InferenceRecord(
        id="req_" + "a" * 32,
        time=house.clock.now(),
        team="red",
        key_id=house.key_ids["red", "developer"],
        endpoint="smollm2",
    )
    await house.store.add_record(record, content=b"sealed")

    async def opened(_: SealedRecord) -> Content:
        return Content(json.dumps(PROMPT).encode(), ["the answer"], "responses")

    stand_on(house.app, replace(house.plane, open_content=opened))
    return house


async def statuses(house: AdminHouse, team: str, role: str) -> set[int]:
    async with house.client() as client:
        return {
            (await client.get(f"/v1/responses/{ID}{path}", headers=house.auth(team, role))).status_code
            for path in PATHS
        }


async def test_the_key_that_asked_it_opens_it(house: AdminHouse):
    assert await statuses(house, "red", "developer") == {200}
    assert "record_content_opened" not in house.log_text.getvalue()


@pytest.mark.parametrize("team", ["red", "blue"])
@pytest.mark.parametrize("role", ROLES)
async def test_another_key_opens_it_only_where_it_may_read_contents(house: AdminHouse, team: str, role: str):
    if (team, role) == ("red", "developer"):
        pytest.skip("the key that asked it")
    found = await statuses(house, team, role)

    assert found == ({200} if role == "admin" else {403} if role == "auditor" else {404})
    assert ("record_content_opened" in house.log_text.getvalue()) == (role == "admin")


async def test_another_key_of_the_same_role_and_team_does_not_open_it(house: AdminHouse):
    async with house.client() as client:
        made = await client.post("/admin/v1/keys", json={"team": "red"}, headers=house.auth("red", "admin"))
        headers = {"authorization": f"Bearer {made.json()['key']}"}
        found = await client.get(f"/v1/responses/{ID}", headers=headers)
        deleted = await client.delete(f"/v1/responses/{ID}", headers=headers)

    assert (found.status_code, deleted.status_code) == (404, 404)
    assert await statuses(house, "red", "developer") == {200}


async def test_what_is_not_signed_for_the_asker_is_not_waited_for(
    house: AdminHouse, monkeypatch: pytest.MonkeyPatch
):
    """An id that nobody got from here may not hold the store up."""
    monkeypatch.setattr(kept_responses, "WAIT_S", 3600.0)
    before = house.store.transactions
    async with house.client() as client, asyncio.timeout(20):
        found = await client.get("/v1/responses/resp_" + "0" * 32, headers=house.auth("red", "developer"))

    assert found.status_code == 404
    assert house.store.transactions == before + 1
