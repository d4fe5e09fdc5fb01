"""The admin API as it runs: SQLite on disk, the store's thread, uvicorn on a private socket."""

import asyncio
import json
import sqlite3
import stat
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import httpx
import pytest

from admin_house import ROLES, AdminHouse
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.app.admin_server import AdminServer
from pilothouse.control.store_thread import StoreThread
from pilothouse.domain import apikey
from pilothouse.domain.policy import GRANTS
from pilothouse.domain.record import InferenceRecord

PATHS = {
    "/admin/v1/keys": "keys.read",
    "/admin/v1/teams": "teams.read",
    "/admin/v1/records": "records.read",
    "/admin/v1/records?content=true": "records.content",
    "/admin/v1/usage": "usage.read",
    "/admin/v1/spec": "spec.read",
    "/admin/v1/models": "models.read",
    "/admin/v1/deployments": "deployments.read",
    "/admin/v1/endpoints": "endpoints.read",
    "/admin/v1/replicas": "replicas.read",
    "/admin/v1/replicas/smollm2-abc-0/logs": "replicas.logs",
    "/admin/v1/status": "status.read",
    "/admin/v1/engines": "engines.read",
}


class Running:
    def __init__(self, house: AdminHouse, socket: Path, database: Path) -> None:
        self.house = house
        self.socket = socket
        self.database = database

    def client(self, team: str = "red", role: str = "admin", **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self.socket)),
            base_url="http://127.0.0.1:8420",
            headers={**self.house.auth(team, role), **headers},
            timeout=10,
        )


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    (tmp_path / "home").mkdir(mode=0o700)
    database, socket = tmp_path / "home" / "store.db", tmp_path / "control.sock"
    store = StoreThread(lambda: SqliteStore(database, reserve_bytes=0))
    await store.start()
    house = AdminHouse(tmp_path, inner=store)
    await house.furnish()
    serving = asyncio.create_task(AdminServer(house.plane, socket).run())
    try:
        async with asyncio.timeout(10):
            while not (socket.exists() and await _answers(socket)):
                await asyncio.sleep(0.02)
        yield Running(house, socket, database)
    finally:
        serving.cancel()
        await asyncio.wait([serving], timeout=10)
        assert await store.aclose(timeout_s=10)


async def _answers(socket: Path) -> bool:
    try:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket))) as client:
            return (await client.get("http://localhost/livez")).status_code == 200
    except httpx.TransportError:
        return False


async def test_the_socket_is_its_owners_alone(running: Running):
    assert stat.S_IMODE(running.socket.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("role", ROLES)
async def test_every_role_gets_what_it_is_granted_over_the_socket(running: Running, role: str):
    async with running.client("red", role) as client:
        for path, action in PATHS.items():
            response = await client.get(path)
            granted = action in GRANTS[role]
            assert response.status_code == (200 if granted else 403), (path, response.text)
            if role != "admin":
                assert running.house.key_ids["blue", "developer"] not in response.text


async def test_a_key_lives_and_ends_over_the_socket(running: Running):
    async with running.client() as admin:
        made = (await admin.post("/admin/v1/keys", json={"team": "red", "expires": "1h"})).json()
        rotated = (await admin.post(f"/admin/v1/keys/{made['id']}/rotate", json={"overlap": "1h"})).json()
        async with running.client(authorization=f"Bearer {made['key']}") as old:
            overlapping = await old.get("/admin/v1/endpoints")
            await admin.delete(f"/admin/v1/keys/{made['id']}")
            ended = await old.get("/admin/v1/endpoints")
        async with running.client(authorization=f"Bearer {rotated['key']}") as new:
            fresh = await new.get("/admin/v1/endpoints")

    assert [answer.status_code for answer in (overlapping, ended, fresh)] == [200, 401, 200]


async def test_the_database_file_holds_no_secret(running: Running):
    async with running.client() as admin:
        made = (await admin.post("/admin/v1/keys", json={"team": "red"})).json()
    secret = made["key"].split("_")[2].encode()

    for file in running.database.parent.rglob("*"):
        if file.is_file():
            assert secret not in file.read_bytes(), file

    with sqlite3.connect(f"file:{running.database}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type='table'")]
        found = [row for name in tables for row in database.execute(f'select * from "{name}"')]  # noqa: S608
    database.close()
    assert any(made["id"] in map(str, row) for row in found)


@pytest.mark.parametrize(
    "key_id",
    ["x' OR '1'='1", "%00", "..%2F..%2Fetc", "a" * 5000, "%F0%9F%92%A3", "x%27%3BDROP TABLE api_keys--"],
)
async def test_hostile_ids_find_nothing_and_break_nothing(running: Running, key_id: str):
    async with running.client() as admin:
        before = (await admin.get("/admin/v1/keys")).json()
        answers = [
            await admin.delete(f"/admin/v1/keys/{key_id}"),
            await admin.get(f"/admin/v1/records/{key_id}"),
            await admin.delete(f"/admin/v1/models/{key_id}"),
        ]
        after = (await admin.get("/admin/v1/keys")).json()

    for answer in answers:
        assert answer.status_code in (400, 404), answer.text
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert len(answer.text) < 1000
    assert before == after


async def test_hostile_filters_find_nothing(running: Running):
    async with running.client() as admin:
        for name, value in product(("endpoint", "code"), ("red' OR 1=1 --", "\x00", "é", "x" * 200)):
            answer = await admin.get("/admin/v1/records", params={name: value})
            assert (answer.status_code, answer.json()["items"]) == (200, []), answer.text


async def test_a_made_up_cursor_is_refused(running: Running):
    made_up = ("x", "0", "-1", "W10", "bnVsbA", "%00", "' OR 1=1")
    async with running.client() as admin:
        for path, cursor in product(("keys", "records"), made_up):
            answer = await admin.get(f"/admin/v1/{path}", params={"cursor": cursor})

            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), cursor


async def test_a_megabyte_of_key_is_refused_and_nothing_else_suffers(running: Running):
    reader, writer = await asyncio.open_unix_connection(str(running.socket))
    writer.write(b"GET /admin/v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ph_" + b"a" * 1_000_000)
    writer.write(b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(200), 10)
    writer.close()

    assert answer.split()[1] in (b"400", b"401", b"431")
    async with running.client() as admin:
        assert (await admin.get("/admin/v1/keys")).status_code == 200


async def test_pages_hold_everything_once_while_new_records_come(running: Running):
    async with running.client() as admin:
        ids: list[str] = []
        cursor: str | None = None
        while True:
            query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
            page = (await admin.get("/admin/v1/records", params=query)).json()
            ids += [item["id"] for item in page["items"]]
            cursor = page["next"]
            await running.house.store.add_record(
                InferenceRecord(
                    id=f"new{len(ids)}",
                    time=running.house.clock.now() + 60,
                    team="red",
                    key_id="k",
                    endpoint="e",
                )
            )
            if cursor is None:
                break

    assert sorted(ids) == [f"req_{team}{n}" for team in ("blue", "red") for n in range(3)]


async def test_usage_by_every_group_adds_up_to_the_same(running: Running):
    async with running.client() as admin:
        totals = [
            (await admin.get("/admin/v1/usage", params={"by": by})).json()["total"]
            for by in ("team", "key", "endpoint", "subject")
        ]

    assert [total["requests"] for total in totals] == [6, 6, 6, 6]
    assert len({total["input_tokens"] for total in totals}) == 1


async def test_two_editors_of_the_spec_never_overwrite_each_other(running: Running):
    async with running.client() as admin:
        spec = (await admin.get("/admin/v1/spec")).json()
        bodies = []
        for most in range(2, 8):
            body = json.loads(json.dumps(spec["spec"]))
            body["deployments"]["smollm2"]["replicas"] = {"min": 1, "max": most}
            bodies.append(body)
        answers = await asyncio.gather(
            *(
                admin.put("/admin/v1/spec", json=body, headers={"if-match": f'"{spec["revision"]}"'})
                for body in bodies
            )
        )

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]


async def test_a_pull_goes_on_when_its_watcher_hangs_up(running: Running):
    models = running.house.models
    async with (
        running.client() as admin,
        admin.stream("POST", "/admin/v1/models", json={"source": "pypi:a==1"}) as response,
    ):
        assert json.loads(await anext(response.aiter_lines()))["event"] == "progress"

    models.go_on.set()
    async with asyncio.timeout(5):
        while not models.finished:
            await asyncio.sleep(0.01)

    assert models.started == 1


async def test_a_followed_log_brings_new_lines_and_ends_with_its_reader(running: Running):
    lines = running.house.log_lines
    async with (
        running.client() as admin,
        admin.stream("GET", "/admin/v1/replicas/smollm2-abc-0/logs?lines=1&follow=true") as response,
    ):
        incoming = response.aiter_lines()
        first = await anext(incoming)
        lines.append("line 6")
        second = await asyncio.wait_for(anext(incoming), 5)

    assert (first, second) == ("line 5", "line 6")


async def test_a_well_made_key_that_nobody_has_costs_no_transaction(running: Running):
    before = running.house.store.transactions
    token = apikey.make("abcdefgh", "a" * 52)
    async with running.client(authorization=f"Bearer {token}") as stranger:
        answer = await stranger.get("/admin/v1/keys")

    assert answer.status_code == 401
    assert running.house.store.transactions == before
