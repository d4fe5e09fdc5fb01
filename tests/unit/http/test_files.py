"""Files and batches: what is taken, who sees it, and how a batch comes to its end."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from admin_house import AdminHouse
from pilothouse.control.batch_run import Answer
from pilothouse.control.keyring import NewKey

CHAT = "/v1/chat/completions"


@pytest.fixture
async def house(tmp_path: Path) -> AdminHouse:
    return await AdminHouse(tmp_path).furnish()


def line(number: int, **changes: Any) -> str:
    body = {"model": "smollm2", "messages": [{"role": "user", "content": str(number)}]}
    return json.dumps({"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body, **changes})


def lines(count: int) -> bytes:
    return "\n".join(line(number) for number in range(count)).encode()


async def call(house: AdminHouse, method: str, path: str, *, team="red", role="developer", **how) -> Any:
    async with house.client() as client:
        return await client.request(method, path, headers=house.auth(team, role), **how)


async def upload(house: AdminHouse, data: bytes, **how: Any) -> httpx.Response:
    form = {"purpose": "batch", **how.pop("form", {})}
    return await call(house, "POST", "/v1/files", files={"file": ("in.jsonl", data)}, data=form, **how)


async def batch(house: AdminHouse, data: bytes, **changes: Any) -> dict[str, Any]:
    file = (await upload(house, data)).json()["id"]
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", **changes}
    answer = await call(house, "POST", "/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until(house: AdminHouse, batch_id: str, *statuses: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            found = (await call(house, "GET", f"/v1/batches/{batch_id}")).json()
            if found["status"] in statuses:
                return found
            await asyncio.sleep(0.01)


async def results(house: AdminHouse, file_id: str) -> list[dict[str, Any]]:
    answer = await call(house, "GET", f"/v1/files/{file_id}/content")
    return [json.loads(text) for text in answer.text.splitlines()]


async def test_a_file_is_kept_sealed_listed_read_and_deleted(house: AdminHouse, tmp_path: Path):
    data = b"a secret prompt" * 100
    made = (await upload(house, data)).json()

    assert (made["bytes"], made["purpose"], made["filename"]) == (len(data), "batch", "in.jsonl")
    assert made["expires_at"] - made["created_at"] == 30 * 86400
    (kept,) = (tmp_path / "files").iterdir()
    assert b"secret" not in kept.read_bytes()
    assert kept.stat().st_mode & 0o077 == 0
    assert (await call(house, "GET", "/v1/files")).json()["data"] == [made]
    assert (await call(house, "GET", f"/v1/files/{made['id']}")).json() == made
    assert (await call(house, "GET", f"/v1/files/{made['id']}/content")).content == data
    assert (await call(house, "DELETE", f"/v1/files/{made['id']}")).json()["deleted"] is True
    assert (await call(house, "GET", f"/v1/files/{made['id']}")).status_code == 404
    assert list((tmp_path / "files").iterdir()) == []


async def test_another_team_sees_neither_files_nor_batches(house: AdminHouse):
    made = await batch(house, lines(1))

    for path in (
        f"/v1/files/{made['input_file_id']}",
        f"/v1/files/{made['input_file_id']}/content",
        f"/v1/batches/{made['id']}",
    ):
        for role in ("developer", "admin"):
            answer = await call(house, "GET", path, team="blue", role=role)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert (await call(house, "GET", "/v1/files", team="blue")).json()["data"] == []
    assert (await call(house, "GET", "/v1/batches", team="blue")).json()["data"] == []
    body = {"input_file_id": made["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
    assert (await call(house, "POST", "/v1/batches", team="blue", json=body)).status_code == 404


@pytest.mark.parametrize("role", ["operator", "scoped"])
async def test_who_may_not_read_what_others_said_sees_his_own_files_alone(house: AdminHouse, role: str):
    if role == "scoped":
        new = NewKey(team="red", role="developer", name="s", endpoints=frozenset({"smollm2"}))
        house.keys["red", "scoped"] = (await house.tenants.create_key(new)).key.reveal()
    others = await batch(house, lines(1))
    mine = (await upload(house, lines(1), role=role)).json()["id"]

    for path in (f"/v1/files/{others['input_file_id']}/content", f"/v1/batches/{others['id']}"):
        assert (await call(house, "GET", path, role=role)).status_code == 404
    assert (await call(house, "GET", "/v1/batches", role=role)).json()["data"] == []
    assert [one["id"] for one in (await call(house, "GET", "/v1/files", role=role)).json()["data"]] == [mine]
    body = {"input_file_id": others["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
    assert (await call(house, "POST", "/v1/batches", role=role, json=body)).status_code == 404


async def test_a_team_keeps_no_more_than_it_may(house: AdminHouse, tmp_path: Path):
    for data, status in (
        (b"x" * 2001, 413),
        (b"x" * 2000, 200),
        (b"x" * 1001, 413),
        (b"x", 200),
        (b"x", 200),
    ):
        assert (await upload(house, data)).status_code == status
    assert (await upload(house, b"x")).status_code == 413
    assert (await upload(house, b"x", team="blue")).status_code == 200
    assert len(list((tmp_path / "files").iterdir())) == 4


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"data": {"purpose": "batch"}}, None),
        ({"data": {"purpose": "batch"}, "files": {"other": ("a", b"x")}}, "file"),
        ({"data": {"purpose": "fine-tune"}, "files": {"file": ("a", b"x")}}, "purpose"),
        ({"files": {"file": ("a", b"x")}}, "purpose"),
        ({"data": {"purpose": "batch", "expires_after[seconds]": "5"}, "files": {"file": ("a", b"x")}},
         "expires_after.seconds"),
        ({"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}}, None),
    ],
)  # fmt: skip
async def test_a_bad_upload_names_what_is_wrong_and_leaves_nothing(house: AdminHouse, tmp_path, how, param):
    headers = {**house.auth("red", "developer"), **how.pop("headers", {})}
    async with house.client() as client:
        answer = await client.post("/v1/files", **how, headers=headers)

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert not (tmp_path / "files").exists() or list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "code", "number"),
    [
        (line(0) + "\n{", "invalid_json_line", 2),
        (line(0) + "\n\n" + line(1, url="/v1/embeddings"), "mismatched_url", 3),
        (line(0, method="GET"), "invalid_method", 1),
        (line(0) + "\n" + line(0), "duplicate_custom_id", 2),
        (line(0, body={"messages": []}), "invalid_line", 1),
        (line(0, body={"model": "m", "stream": True}), "invalid_request", 1),
        (line(0, custom_id=""), "invalid_custom_id", 1),
        (line(0, more=1), "invalid_line", 1),
        ("\n \n", "empty_file", None),
    ],
)
async def test_a_bad_line_fails_the_batch_with_its_number(house: AdminHouse, text, code, number):
    made = await batch(house, text.encode())

    failed = await until(house, made["id"], "failed")
    (fault,) = failed["errors"]["data"]
    assert (fault["code"], fault["line"]) == (code, number)
    assert failed["failed_at"]
    assert failed["output_file_id"] is None


async def test_every_line_is_answered_in_the_output_or_the_error_file(house: AdminHouse):
    async def ask(key_id: str, path: str, body: bytes) -> Answer:
        assert (key_id, path) == (house.key_ids["red", "developer"], CHAT)
        bad = json.loads(body)["messages"][0]["content"] == "2"
        return Answer(
            status=400 if bad else 200, request_id="req_7", body=b'{"a":1}', code="x" if bad else ""
        )

    house.ask = ask
    made = await batch(house, lines(5), metadata={"for": "test"})
    done = await until(house, made["id"], "completed")

    assert done["request_counts"] == {"total": 5, "completed": 4, "failed": 1}
    assert done["metadata"] == {"for": "test"}
    assert {one["custom_id"] for one in await results(house, done["output_file_id"])} == {
        "c0",
        "c1",
        "c3",
        "c4",
    }
    (error,) = await results(house, done["error_file_id"])
    assert error["custom_id"] == "c2"
    assert error["response"] == {"status_code": 400, "request_id": "req_7", "body": {"a": 1}}


async def test_what_found_no_room_is_asked_again(house: AdminHouse, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pilothouse.control.batch_run.PATIENCE_S", (0.01, 0.01))
    monkeypatch.setattr("pilothouse.control.batch_run.ROUND_S", 0.01)
    said = [None, Answer(status=503, request_id="r", body=b"{}", code="overloaded"),
            *[Answer(status=429, request_id="r", body=b"{}", code="rate_limit_exceeded")] * 5]  # fmt: skip

    async def ask(key_id: str, path: str, body: bytes) -> Answer | None:
        return said.pop(0) if said else Answer(status=200, request_id="r", body=b"{}")

    house.ask = ask
    done = await until(house, (await batch(house, lines(3)))["id"], "completed")
    assert done["request_counts"]["completed"] == 3


async def test_a_cancelled_batch_keeps_what_it_has_and_says_what_it_has_not(house: AdminHouse):
    go_on = asyncio.Event()

    async def ask(key_id: str, path: str, body: bytes) -> Answer:
        await go_on.wait()
        return Answer(status=200, request_id="r", body=b"{}")

    house.ask = ask
    made = await batch(house, lines(10))
    await until(house, made["id"], "in_progress")
    held = await call(house, "DELETE", f"/v1/files/{made['input_file_id']}")
    assert held.status_code == 409
    for _ in range(2):
        cancelled = await call(house, "POST", f"/v1/batches/{made['id']}/cancel")
        assert cancelled.json()["status"] == "cancelling"
    go_on.set()
    ended = await until(house, made["id"], "cancelled")

    counts = ended["request_counts"]
    assert counts["completed"] + counts["failed"] == counts["total"] == 10
    assert counts["completed"] <= 2
    errors = await results(house, ended["error_file_id"])
    assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
    assert (await call(house, "DELETE", f"/v1/files/{made['input_file_id']}")).status_code == 200


async def test_a_batch_whose_window_ends_says_which_lines_were_not_asked(house: AdminHouse):
    async def ask(key_id: str, path: str, body: bytes) -> None:
        return None

    house.ask = ask
    made = await batch(house, lines(4), completion_window="400ms")
    ended = await until(house, made["id"], "expired")

    assert ended["request_counts"] == {"total": 4, "completed": 0, "failed": 4}
    errors = await results(house, ended["error_file_id"])
    assert {one["error"]["code"] for one in errors} == {"batch_expired"}
    assert (await call(house, "POST", f"/v1/batches/{made['id']}/cancel")).status_code == 409


async def test_a_store_that_goes_away_loses_and_repeats_nothing(house: AdminHouse):
    async def ask(key_id: str, path: str, body: bytes) -> Answer:
        house.store.broken = json.loads(body)["messages"][0]["content"] == "3"
        if house.store.broken:
            asyncio.get_running_loop().call_later(0.3, setattr, house.store, "broken", False)
        return Answer(status=200, request_id="r", body=b"{}")

    house.ask = ask
    made = await batch(house, lines(5))
    async with asyncio.timeout(10):
        while not house.store.broken:
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while house.store.broken:
            await asyncio.sleep(0.01)
    done = await until(house, made["id"], "completed")

    found = await results(house, done["output_file_id"])
    assert sorted(one["custom_id"] for one in found) == [f"c{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/images"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "8d"}, "completion_window"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
    ],
)
async def test_a_bad_batch_names_its_field(house: AdminHouse, changes, param):
    file = (await upload(house, lines(1))).json()["id"]
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", **changes}
    answer = await call(house, "POST", "/v1/batches", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
