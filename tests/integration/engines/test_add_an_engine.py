"""The how-to of adding an engine: its driver is short, found, checked, started, asked and ended."""

import asyncio
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from engine_home import Home
from pilothouse.app.engines import engine_drivers, option_types
from pilothouse.domain.errors import EngineUnavailable, InvalidRequest
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DEFAULT_SPEC, DeploymentSpec, Spec
from pilothouse.domain.speccheck import check_spec
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import EngineDriver, Machine
from pilothouse.testing.conformance_engine import ANYWHERE, answer, ask, running, text_of, usage_of

HOWTO = Path(__file__).parents[3] / "docs" / "howto" / "add-an-engine.md"
MOST_LINES = 150
HEADER = ModelHeader(architecture="llama", context_tokens=512, quantization="Q4", parameters=1)
ARTIFACT = Artifact(name="m", digest="sha256:aa", path="/m", bytes=1, header=HEADER)


def blocks() -> dict[str, str]:
    """The files of the page, by name."""
    found = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", HOWTO.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineDriver]:
    """As a package that brings it would be installed."""
    files = blocks()
    for name in ("parrot.py", "parrot_server.py"):
        (tmp_path / name).write_text(files[name])
    info = tmp_path / "parrot-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        files["pyproject.toml"]
        .replace('[project.entry-points."pilothouse.engine"]', "[pilothouse.engine]")
        .replace('"', "")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield engine_drivers()["parrot"]
    sys.modules.pop("parrot", None)


def test_the_driver_is_short() -> None:
    assert len(blocks()["parrot.py"].splitlines()) < MOST_LINES


def test_it_is_checked_like_any_other(driver: EngineDriver) -> None:
    def declared(**options: object) -> Spec:
        deployment = DeploymentSpec(model="smollm2", engine="parrot", engine_options=options)
        return Spec(models=DEFAULT_SPEC.models, deployments={"smollm2": deployment})

    engines = option_types(engine_drivers())
    check_spec(declared(longest=3), engines=engines, targets=["local"])

    with pytest.raises(InvalidRequest, match="did you mean `longest`"):
        check_spec(declared(longst=3), engines=engines, targets=["local"])


async def test_it_is_started_asked_and_ended(driver: EngineDriver, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    spec = DeploymentSpec(model="m", engine="parrot", engine_options={"longest": 5})
    launch = driver.launch("m-1-0", spec, ARTIFACT, Machine(cpus=1, memory_available_bytes=10**9))
    replica = await home.start(launch)
    try:
        engine = driver.connect(
            replica.address,
            model="m",
            context_tokens=512,
            secret=Secret(Path(replica.token_file).read_text().strip()),
            options=replica.options,
        )
        async with asyncio.timeout(60):
            while not (await engine.health(deadline_s=5.0)).ok:
                await asyncio.sleep(0.05)

        chunks = await answer(engine, ask("polly wants a cracker", max_tokens=None))
        assert text_of(chunks) == "polly wants a cracker polly "
        assert (usage_of(chunks).input, usage_of(chunks).output) == (4, 5)

        async with aclosing(
            engine.stream(ask("on and on", max_tokens=10_000), ANYWHERE, deadline_s=60)
        ) as stream:
            await anext(stream)
        await running(engine, lambda count: count == 0, timeout_s=1.0)

        await home.stop_all()
        with pytest.raises(EngineUnavailable):
            await answer(engine, ask())
        await engine.aclose()
    finally:
        await home.stop_all()
    assert await home.target().observe() == []
