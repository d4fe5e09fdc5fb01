import asyncio
import os
from collections.abc import Callable
from hashlib import sha256
from io import StringIO
from pathlib import Path

import pytest

from house_store import HouseStore
from pilothouse.control.adminkey import AdminKeyFile
from pilothouse.control.keyring import Keyring, NewKey
from pilothouse.control.tenants import ADMIN_KEY_NAME, Tenants
from pilothouse.domain import apikey
from pilothouse.domain.errors import (
    Conflict,
    InvalidApiKey,
    InvalidRequest,
    NotFound,
    OperationFailed,
    StoreUnavailable,
)
from pilothouse.domain.spec import DEFAULT_SPEC
from pilothouse.domain.tenancy import ApiKeyRow
from pilothouse.kit.log import Log
from pilothouse.kit.secret import Secret

DAY_S = 86400.0


class HandClock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class House:
    """Tenants with everything around them."""

    def __init__(self, folder: Path, store: HouseStore | None = None) -> None:
        self.store = store or HouseStore()
        self.clock = HandClock()
        self.told: list[set[str]] = []
        self.log = StringIO()
        self.keyring = Keyring(b"p" * 32, clock=self.clock)
        self.file = AdminKeyFile(folder / "keys" / "admin.key")
        self.tenants = Tenants(
            self.store,
            self.keyring,
            clock=self.clock,
            changed=lambda: self.told.append(set(self.keyring.entries())),
            admin_file=self.file,
            log=Log("test", stream=self.log),
        )

    async def furnish(self) -> "House":
        """Declare the default spec and make team red."""
        await self.store(
            lambda unit: unit.specs.put(DEFAULT_SPEC, expected_revision=0, author="", now=self.clock.now())
        )
        await self.tenants.create_team("red")
        return self

    async def rows(self) -> list[ApiKeyRow]:
        return (await self.store(lambda unit: unit.keys.page())).items

    async def key(self, **changes: object) -> tuple[str, str]:
        """Id and text of a new key of team red."""
        made = await self.tenants.create_key(NewKey(**{"team": "red", **changes}))  # type: ignore[arg-type]
        return made.row.id, made.key.reveal()

    def opens(self, text: str) -> bool:
        try:
            self.keyring.authenticate(text)
        except InvalidApiKey:
            return False
        return True


@pytest.fixture
async def house(tmp_path: Path) -> House:
    return await House(tmp_path).furnish()


async def test_a_new_key_opens_and_the_workers_are_told(house: House):
    key_id, text = await house.key()

    principal = house.keyring.authenticate(text)

    assert (principal.key_id, principal.team, principal.role) == (key_id, "red", "developer")
    assert house.told == [{key_id}]


async def test_a_key_of_another_gateway_goes_on_by_its_hash_alone(house: House):
    old = "sk-qV5vN2m0Jw8cS1tXyZ3aBg"
    row = await house.tenants.carry_key(NewKey(team="red"), sha256(old.encode()).hexdigest())

    assert house.keyring.authenticate(old).key_id == row.id
    assert not house.opens(old[:-1] + "h")
    assert house.told == [{row.id}]

    rotated = await house.tenants.rotate(row.id)

    assert not house.opens(old)
    assert house.opens(rotated.key.reveal())


async def test_a_key_is_carried_over_once_for_developers_and_by_a_hash(house: House):
    known = sha256(b"sk-qV5vN2m0Jw8cS1tXyZ3aBg").hexdigest()
    await house.tenants.carry_key(NewKey(team="red"), known)

    with pytest.raises(Conflict):
        await house.tenants.carry_key(NewKey(team="red"), known)
    with pytest.raises(InvalidRequest, match="developer"):
        await house.tenants.carry_key(NewKey(team="red", role="admin"), sha256(b"other").hexdigest())
    for text in ("", known.upper(), known[:-1], known + "0", f" {known}"):
        with pytest.raises(InvalidRequest, match="token_sha256"):
            await house.tenants.carry_key(NewKey(team="red"), text)


async def test_who_knows_the_hash_of_a_key_alone_cannot_use_it(house: House):
    known = sha256(b"sk-qV5vN2m0Jw8cS1tXyZ3aBg").hexdigest()
    row = await house.tenants.carry_key(NewKey(team="red"), known)

    for secret in (f"sha256:{known}", f"sha256{known}"[:64], known):
        assert not house.opens(apikey.make(row.id, secret))
    assert not house.opens(known)
    assert not house.opens(f"sk-{known}")


async def test_neither_the_store_nor_a_printed_key_holds_the_secret(house: House):
    made = await house.tenants.create_key(NewKey(team="red"))
    secret = made.key.reveal().split("_")[2]

    printed = f"{made} {made!r} {await house.rows()} {house.log.getvalue()}"

    assert secret not in printed


async def test_a_key_of_a_store_without_the_pepper_opens_nothing(house: House):
    _, text = await house.key()
    other = Keyring(b"q" * 32, clock=house.clock)
    other.replace(await house.rows())

    with pytest.raises(InvalidApiKey):
        other.authenticate(text)


async def test_knowing_who_asks_needs_no_store(house: House):
    _, text = await house.key()
    before = house.store.transactions
    house.store.broken = True

    assert house.opens(text)
    assert not house.opens(text[:-1] + ("0" if text[-1] != "0" else "1"))
    assert house.store.transactions == before


async def test_a_revoked_key_is_gone_at_once_and_everywhere(house: House):
    key_id, text = await house.key()

    first = await house.tenants.revoke(key_id)
    house.clock.time += 5
    second = await house.tenants.revoke(key_id)

    assert not house.opens(text)
    assert house.told[-1] == set()
    assert first.revoked_at == second.revoked_at


async def test_a_revocation_that_cannot_be_stored_is_an_error_and_the_key_goes_on(house: House):
    key_id, text = await house.key()
    house.store.broken = True

    with pytest.raises(StoreUnavailable):
        await house.tenants.revoke(key_id)

    assert house.opens(text)


async def test_a_caller_that_goes_away_leaves_no_revoked_key_alive(tmp_path: Path):
    house = await House(tmp_path).furnish()
    key_id, text = await house.key()
    committed, go_on = asyncio.Event(), asyncio.Event()
    direct = house.store

    async def slow(work: Callable[..., object], /, *, urgent: bool = False) -> object:
        result = await direct(work, urgent=urgent)
        committed.set()
        await go_on.wait()
        return result

    house.tenants._transact = slow  # type: ignore[assignment]
    revoking = asyncio.create_task(house.tenants.revoke(key_id))
    await committed.wait()

    revoking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await revoking
    go_on.set()
    await asyncio.gather(*house.tenants._commits)

    assert not house.opens(text)
    assert house.told[-1] == set()


async def test_a_key_ends_when_it_expires(house: House):
    _, text = await house.key(expires_at=house.clock.now() + 60)

    assert house.opens(text)
    house.clock.time += 60

    assert not house.opens(text)
    assert house.keyring.entries() == {}


async def test_a_rotated_key_ends_at_once_by_default(house: House):
    key_id, old = await house.key()

    made = await house.tenants.rotate(key_id)

    assert house.opens(made.key.reveal())
    assert not house.opens(old)
    assert made.row.id != key_id


async def test_with_an_overlap_the_old_key_lives_on_for_so_long(house: House):
    key_id, old = await house.key()

    made = await house.tenants.rotate(key_id, overlap_s=3600)
    house.clock.time += 3599
    assert house.opens(old)
    house.clock.time += 1

    assert not house.opens(old)
    assert house.opens(made.key.reveal())


async def test_an_overlap_never_prolongs_the_old_key(house: House):
    key_id, old = await house.key(expires_at=house.clock.now() + 60)

    await house.tenants.rotate(key_id, overlap_s=3600)
    house.clock.time += 60

    assert not house.opens(old)


async def test_a_rotated_key_keeps_everything_and_lives_as_long_anew(house: House):
    key_id, _ = await house.key(
        name="ci", endpoints=frozenset({"smollm2"}), expires_at=house.clock.now() + 30 * DAY_S
    )
    house.clock.time += 29 * DAY_S

    row = (await house.tenants.rotate(key_id)).row

    assert (row.team, row.role, row.name, row.endpoints) == ("red", "developer", "ci", {"smollm2"})
    assert row.expires_at == house.clock.now() + 30 * DAY_S


async def test_a_key_that_ended_is_not_rotated(house: House):
    key_id, _ = await house.key()
    await house.tenants.revoke(key_id)

    with pytest.raises(Conflict, match="create a new one"):
        await house.tenants.rotate(key_id)

    assert len(await house.rows()) == 1


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"team": "blue"}, "no team"),
        ({"role": "king"}, "role: not one of admin, operator, developer, auditor"),
        ({"endpoints": frozenset({"gpt"})}, "no endpoint 'gpt'; there are: smollm2"),
        ({"endpoints": frozenset()}, "an empty list opens nothing"),
        ({"role": "admin", "endpoints": frozenset({"smollm2"})}, "its role is developer"),
        ({"name": ADMIN_KEY_NAME}, "this machine's own key"),
        ({"name": "a\x00b"}, "printable"),
        ({"name": "x" * 101}, "100"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(house: House, changes: dict[str, object], fault: str):
    with pytest.raises((InvalidRequest, NotFound), match=fault):
        await house.key(**changes)

    assert await house.rows() == []
    assert house.told == []


@pytest.mark.parametrize("name", ["", "Red", "a b", "-a", "a-", "x" * 64, "a\x00", "é", "a\n", "' OR 1=1"])
async def test_a_team_name_that_cannot_be_a_label_is_refused(house: House, name: str):
    with pytest.raises(InvalidRequest, match="such as research-eu"):
        await house.tenants.create_team(name)


async def test_a_team_is_made_once(house: House):
    with pytest.raises(Conflict):
        await house.tenants.create_team("red")


async def test_after_a_restart_the_same_keys_open(house: House, tmp_path: Path):
    _, text = await house.key()
    gone_id, gone = await house.key()
    await house.tenants.revoke(gone_id)

    again = House(tmp_path, house.store)
    await again.tenants.load()

    assert again.opens(text)
    assert not again.opens(gone)


async def test_the_first_start_makes_an_admin_key_for_its_owner_alone(tmp_path: Path):
    house = House(tmp_path)

    await house.tenants.load()
    await house.tenants.ensure_admin_key()

    mode = house.file.path.stat().st_mode & 0o777  # reading would mend it
    key = house.file.read()
    assert mode == 0o600
    assert key is not None
    assert house.keyring.authenticate(key.reveal()).role == "admin"
    assert os.listdir(house.file.path.parent) == ["admin.key"]  # noqa: PTH208
    assert key.reveal() not in house.log.getvalue()


async def test_a_second_start_keeps_the_admin_key(tmp_path: Path):
    house = House(tmp_path)
    await house.tenants.ensure_admin_key()
    first = house.file.read()
    again = House(tmp_path, house.store)

    await again.tenants.load()
    await again.tenants.ensure_admin_key()

    assert again.file.read() == first
    assert again.told == []


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\xff\x00", b"x" * 10_000])
async def test_a_lost_admin_key_is_replaced_revoked_and_said(tmp_path: Path, content: bytes | None):
    house = House(tmp_path)
    await house.tenants.ensure_admin_key()
    lost = house.file.read()
    assert lost is not None
    if content is None:
        house.file.path.unlink()
    else:
        house.file.path.write_bytes(content)

    await house.tenants.ensure_admin_key()

    fresh = house.file.read()
    assert fresh is not None
    assert house.opens(fresh.reveal())
    assert not house.opens(lost.reveal())
    assert '"revoked": ["' in house.log.getvalue()


async def test_rotating_the_admin_key_rewrites_its_file(tmp_path: Path):
    house = House(tmp_path)
    await house.tenants.ensure_admin_key()
    (key_id,) = house.keyring.entries()

    made = await house.tenants.rotate(key_id)

    assert house.file.read() == made.key


def test_an_admin_key_file_open_to_others_is_closed(tmp_path: Path):
    path = tmp_path / "admin.key"
    path.write_text("ph_x")
    path.chmod(0o644)

    AdminKeyFile(path).read()

    assert path.stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OperationFailed, match=r"cannot write the admin key file .*admin\.key"):
        AdminKeyFile(tmp_path / "file" / "admin.key").write(Secret("ph_x"))
