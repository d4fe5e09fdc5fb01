import json
import sys
from pathlib import Path

import pytest

from pilothouse.adapters.engines import _environment
from pilothouse.adapters.engines.transformers import VERSION, TransformersDriver
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import InstallableDriver, Launch, Machine

HEADER = ModelHeader(
    architecture="llama",
    context_tokens=8192,
    quantization="BF16",
    parameters=1,
    layers=30,
    kv_heads=3,
    head_dim=64,
)
ARTIFACT = Artifact(
    name="m",
    digest="sha256:aa",
    path="/models/{folder}",
    bytes=270_000_000,
    header=HEADER,
    format="safetensors",
)


def launched(memory_bytes: int = 8 * 10**9, **options: object) -> Launch:
    machine = Machine(cpus=4, memory_available_bytes=memory_bytes)
    spec = DeploymentSpec(model="m", engine="transformers", engine_options=options)
    return TransformersDriver().launch("m-1-0", spec, ARTIFACT, machine)


def test_it_runs_in_its_own_environment_and_reaches_nobody() -> None:
    launch = launched()

    assert launch.argv[0] == f"{sys.prefix}/engines/transformers/bin/python"
    assert launch.argv[-1] == "{config}"
    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert launch.address == "unix:{socket}"
    assert not any("models" in word for word in launch.argv)


def test_sizes_are_chosen_or_taken_over() -> None:
    assert (launched().context_tokens, json.loads(launched().config)["threads"]) == (4096, 3)
    assert launched(context_tokens=512, threads=1).context_tokens == 512
    assert [json.loads(launched(slots=n).config)["slots"] for n in (0, 1, 6)] == [1, 1, 6]
    assert launched(slots=6).memory_bytes - launched().memory_bytes == 5 * 2 * 30 * 3 * 64 * 4096 * 4


@pytest.mark.parametrize(
    ("memory_bytes", "options", "fault"),
    [
        (500_000_000, {}, "does not fit: weights 270 MB"),
        (8 * 10**9, {"context_tokens": 9000}, "9000 is more than the 8192 that the model has"),
    ],
)
def test_what_cannot_run_is_refused(memory_bytes: int, options: dict[str, int], fault: str) -> None:
    with pytest.raises(OperationFailed, match=fault):
        launched(memory_bytes, **options)


@pytest.mark.parametrize(
    ("version", "ok", "missing"),
    [
        (VERSION, True, ""),
        (f"{VERSION}+cpu", True, ""),
        ("4.0.0", False, f"transformers {VERSION}, for 4.0.0 was never tried"),
        ("", False, f"an environment with transformers {VERSION}"),
    ],
)
def test_an_environment_is_looked_at_without_an_import(
    version: str, ok: bool, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_environment.sys, "prefix", str(tmp_path))
    folder = tmp_path / "engines" / "transformers"
    if version:
        (folder / "lib/python3.11/site-packages" / f"transformers-{version}.dist-info").mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "python").touch()

    found = TransformersDriver().installed()

    assert (found.ok, found.missing) == (ok, missing)
    assert ok or found.install_command == "pilothouse engine install transformers"


def test_what_it_is_installed_from_is_pinned() -> None:
    driver = TransformersDriver()
    assert isinstance(driver, InstallableDriver)

    pinned = Path(driver.environment.constraints).read_text().splitlines()

    assert f"transformers=={VERSION}" in pinned
    assert all("==" in line for line in pinned)
