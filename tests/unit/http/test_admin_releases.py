from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from admin_house import AdminHouse
from pilothouse.domain.answer_id import AnswerIds
from pilothouse.domain.spec import DEFAULT_SPEC, DeploymentSpec
from pilothouse.domain.status import DeploymentStatus
from pilothouse.kit.ids import new_id


@pytest.fixture
async def house(tmp_path: Path) -> AdminHouse:
    made = await AdminHouse(tmp_path).furnish()
    deployments = {**DEFAULT_SPEC.deployments, "next": DeploymentSpec(model="smollm2")}
    spec = replace(DEFAULT_SPEC, deployments=deployments)
    await made.specs.declare(spec, expected_revision=None, author="")
    made.system = replace(
        made.system,
        deployments={
            name: DeploymentStatus(name=name, phase="ready", ready=1)
            for name in ("smollm2", "next", "smollm2-smollm2")
        },
    )
    return made


async def call(
    house: AdminHouse, method: str, path: str, body: Any = None, *, team: str = "red", role: str = "admin"
) -> tuple[int, Any]:
    async with house.client() as client:
        answer = await client.request(method, path, json=body, headers=house.auth(team, role))
        return answer.status_code, answer.json()


def signed(team: str) -> str:
    return "chatcmpl-" + AnswerIds(b"s" * 32).make(team, 0.0).removeprefix("req_")


async def test_a_rollout_is_begun_seen_and_aborted(house: AdminHouse):
    status, begun = await call(house, "POST", "/admin/v1/rollouts", {"endpoint": "smollm2", "to": "next"})
    assert (status, begun["phase"], begun["stable"], begun["candidate"]) == (
        201,
        "waiting",
        "smollm2",
        "next",
    )

    await house.rollouts.tick()
    status, seen = await call(house, "GET", "/admin/v1/rollouts/smollm2", role="auditor")
    assert (status, seen["phase"], seen["weight"]) == (200, "canary", 5)
    assert (await call(house, "GET", "/admin/v1/rollouts"))[1]["items"][0]["id"] == begun["id"]

    status, ended = await call(house, "POST", "/admin/v1/rollouts/smollm2/abort", role="operator")
    assert (status, ended["phase"]) == (200, "aborted")


async def test_a_model_is_rolled_out_as_a_deployment_like_the_present_one(house: AdminHouse):
    status, begun = await call(
        house, "POST", "/admin/v1/rollouts", {"endpoint": "smollm2", "model": "smollm2"}
    )

    assert (status, begun["candidate"]) == (201, "smollm2-smollm2")
    assert house.spec.deployments["smollm2-smollm2"] == house.spec.deployments["smollm2"]
    status, promoted = await call(house, "POST", "/admin/v1/rollouts/smollm2/promote")
    assert (status, promoted["phase"]) == (200, "promoted")
    assert house.spec.endpoints["smollm2"].routes[0].deployment == "smollm2-smollm2"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"endpoint": "smollm2"}, 400),
        ({"endpoint": "smollm2", "to": "next", "model": "smollm2"}, 400),
        ({"endpoint": "none", "to": "next"}, 404),
        ({"endpoint": "none", "model": "smollm2"}, 404),
        ({"endpoint": "smollm2", "to": "none"}, 404),
        ({"endpoint": "smollm2", "model": "none"}, 404),
        ({"endpoint": "smollm2", "to": "smollm2"}, 409),
        ({"endpoint": "smollm2", "to": "next", "speed": 1}, 400),
    ],
)
async def test_what_cannot_be_rolled_out_is_refused(house: AdminHouse, body: Any, status: int):
    assert (await call(house, "POST", "/admin/v1/rollouts", body))[0] == status


async def test_who_only_builds_or_watches_begins_nothing(house: AdminHouse):
    for role in ("developer", "auditor"):
        body = {"endpoint": "smollm2", "to": "next"}
        assert (await call(house, "POST", "/admin/v1/rollouts", body, role=role))[0] == 403
    assert (await call(house, "GET", "/admin/v1/rollouts/smollm2"))[0] == 404


async def test_feedback_is_accepted_before_its_record_and_once_for_each_key(house: AdminHouse):
    body = {"id": signed("red"), "name": "thumbs", "value": True, "idempotency_key": "a"}

    first = await call(house, "POST", "/v1/feedback", body, role="developer")
    again = await call(house, "POST", "/v1/feedback", {**body, "value": False}, role="developer")

    assert first[0] == again[0] == 202
    assert first[1] == again[1]
    assert house.feedback.counts["thumbs", "true"] == 1
    _, listed = await call(house, "GET", "/admin/v1/feedback", role="developer")
    assert [one["value"] for one in listed["items"]] == [1.0]


@pytest.mark.parametrize("other", [{"id": signed("red")}, {"name": "stars"}])
async def test_a_key_that_was_used_for_something_else_is_refused_and_not_swallowed(
    house: AdminHouse, other: dict[str, str]
):
    body = {"id": signed("red"), "name": "thumbs", "value": True, "idempotency_key": "a"}
    assert (await call(house, "POST", "/v1/feedback", body))[0] == 202

    status, refused = await call(house, "POST", "/v1/feedback", {**body, **other})

    assert (status, refused["error"]["param"]) == (409, "idempotency_key")
    assert "'a' was sent before, with 'thumbs'" in refused["error"]["message"]
    assert len((await call(house, "GET", "/admin/v1/feedback"))[1]["items"]) == 1


async def test_nobody_rates_what_another_team_was_answered(house: AdminHouse):
    forged = "chatcmpl-" + new_id()

    for answer_id in (signed("blue"), forged, "req_blue0"):
        body = {"id": answer_id, "name": "thumbs", "value": False}
        assert (await call(house, "POST", "/v1/feedback", body))[0] in (400, 404)
    assert (await call(house, "GET", "/admin/v1/feedback"))[1]["items"] == []


async def test_an_unsigned_id_is_as_good_when_its_record_is_there(house: AdminHouse):
    plain = new_id("req_")
    record = await house.store(lambda unit: unit.records.get("req_red0"))
    await house.store.add_record(replace(record, id=plain))
    body = {"id": plain, "name": "thumbs", "value": True}

    assert (await call(house, "POST", "/v1/feedback", body))[0] == 202
    assert (await call(house, "POST", "/v1/feedback", body, team="blue"))[0] == 404


async def test_a_text_rests_sealed_and_is_opened_for_the_few(house: AdminHouse):
    body = {"id": signed("red"), "name": "note", "value": "far too long", "subject": "ada"}
    await call(house, "POST", "/v1/feedback", body)

    kept = (await house.store(lambda unit: unit.feedback.page(limit=1)))[0]
    assert b"too long" not in (kept.sealed or b"")
    assert kept.subject_hash
    _, opened = await call(house, "GET", "/admin/v1/feedback?content=true")
    assert opened["items"][0]["text"] == "far too long"
    _, plain = await call(house, "GET", "/admin/v1/feedback", role="developer")
    assert plain["items"][0]["text"] is None
    assert (await call(house, "GET", "/admin/v1/feedback?content=true", role="developer"))[0] == 403


async def test_an_auditor_rates_nothing(house: AdminHouse):
    body = {"id": signed("red"), "name": "thumbs", "value": True}

    assert (await call(house, "POST", "/v1/feedback", body, role="auditor"))[0] == 403
