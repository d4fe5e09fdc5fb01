from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from pilothouse.app.seed import seed, still_holds
from pilothouse.config import Settings, make_settings, write_spec
from pilothouse.control.declarations import Declarations
from pilothouse.domain.errors import InvalidRequest, OperationFailed
from pilothouse.domain.spec import DEFAULT_SPEC, DeploymentSpec, ModelSpec, Spec
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.log import Log
from pilothouse.ports.store import StoredSpec, UnitOfWork
from pilothouse.testing.memory_store import MemoryStore
from spec_trees import ENGINES

T = TypeVar("T")

MINE = Spec(
    models={"m": ModelSpec(source="file:/m.gguf")}, deployments={"d": DeploymentSpec(model="m")}, endpoints={}
)
OTHER = Spec(models=MINE.models)


class House:
    def __init__(self, folder: Path, stored: Spec | None = None) -> None:
        self.folder = folder
        self.store = MemoryStore()
        if stored is not None:
            with self.store.unit() as unit:
                unit.specs.put(stored, expected_revision=0, author="before", now=1.0)
        self.config = folder / "pilothouse.yaml"
        self.settings_file = folder / "settings.json"
        (folder / "run").mkdir()
        self.up()

    async def transact(self, work: Callable[[UnitOfWork], T], /, *, urgent: bool = False) -> T:
        with self.store.unit(urgent=urgent) as unit:
            return work(unit)

    def up(self) -> None:
        """The supervisor writes the settings anew."""
        self.settings_file.unlink(missing_ok=True)
        (self.folder / f"filler-{len(list(self.folder.iterdir()))}").write_text(
            "keeps the inode from its reuse"
        )
        self.settings_file.write_text("{}")

    async def start(self, *, config: Spec | str | None = None) -> StoredSpec:
        if config is not None:
            self.config.write_bytes(config.encode() if isinstance(config, str) else write_spec(config))
        settings: Settings = make_settings(
            home=str(self.folder), config=str(self.config) if config is not None else ""
        )
        declarations = await self.declarations()
        return await seed(declarations, settings, self.settings_file, Log("test"))

    async def declarations(self) -> Declarations:
        made = Declarations(
            self.transact,
            SystemClock(),
            engines=ENGINES,
            targets=["local"],
            declared=lambda stored: None,
        )
        await made.load()
        return made


async def test_the_first_start_declares_the_default(tmp_path):
    stored = await House(tmp_path).start()

    assert (stored.spec, stored.revision, stored.author) == (DEFAULT_SPEC, 1, "default")


async def test_a_later_start_keeps_what_was_declared(tmp_path):
    stored = await House(tmp_path, stored=MINE).start()

    assert (stored.spec, stored.revision) == (MINE, 1)


async def test_the_config_file_becomes_a_revision(tmp_path):
    stored = await House(tmp_path, stored=OTHER).start(config=MINE)

    assert (stored.spec, stored.revision, stored.author) == (MINE, 2, "config")


async def test_a_restart_of_the_controller_does_not_undo_what_was_declared_since(tmp_path):
    house = House(tmp_path)
    await house.start(config=MINE)
    await (await house.declarations()).declare(OTHER, expected_revision=None, author="key")

    assert (await house.start(config=MINE)).spec == OTHER

    house.up()
    assert (await house.start(config=MINE)).spec == MINE


async def test_a_config_file_with_a_fault_ends_the_first_start(tmp_path):
    with pytest.raises(InvalidRequest, match="did you mean `deployments`"):
        await House(tmp_path).start(config="version: 1\ndeploymets: {}\n")


async def test_a_config_file_with_a_fault_leaves_running_what_was_declared(tmp_path):
    assert (await House(tmp_path, stored=MINE).start(config="version: [")).spec == MINE


async def test_a_config_file_that_is_not_there_is_named(tmp_path):
    house = House(tmp_path)
    house.config = tmp_path / "gone" / "pilothouse.yaml"
    settings = make_settings(home=str(tmp_path), config=str(house.config))

    with pytest.raises(OperationFailed, match=r"gone/pilothouse\.yaml"):
        await seed(await house.declarations(), settings, house.settings_file, Log("test"))


def test_what_was_declared_before_holds_unless_the_config_file_says_otherwise(tmp_path):
    config = tmp_path / "pilothouse.yaml"
    config.write_bytes(write_spec(MINE))
    settings = make_settings(home=str(tmp_path), config=str(config))

    assert still_holds(MINE, make_settings(home=str(tmp_path)))
    assert still_holds(MINE, settings)
    assert not still_holds(OTHER, settings)
    config.unlink()
    assert not still_holds(MINE, settings)
