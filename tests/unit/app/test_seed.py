from pathlib import Path

import pytest

from pilothouse.app.seed import seed
from pilothouse.config import Settings, make_settings, write_spec
from pilothouse.control.declarations import Declarations
from pilothouse.domain.errors import InvalidRequest, OperationFailed
from pilothouse.domain.spec import DEFAULT_SPEC, DeploymentSpec, ModelSpec, Spec
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.log import Log
from pilothouse.ports.store import StoredSpec
from small_store import SmallStore

MINE = Spec(
    models={"m": ModelSpec(source="file:/m.gguf")}, deployments={"d": DeploymentSpec(model="m")}, endpoints={}
)
OTHER = Spec(models=MINE.models)


class House:
    def __init__(self, folder: Path, stored: Spec | None = None) -> None:
        self.folder = folder
        self.store = SmallStore(spec=stored)
        self.config = folder / "pilothouse.yaml"
        self.settings_file = folder / "settings.json"
        (folder / "run").mkdir()
        self.up()

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
            self.store.transact,
            SystemClock(),
            engines=["llama.cpp"],
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
