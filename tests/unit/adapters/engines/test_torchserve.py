import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pilothouse.adapters.engines import torchserve
from pilothouse.adapters.engines._own_request import generator_request
from pilothouse.adapters.engines.torchserve import VERSION, TorchServeDriver
from pilothouse.app.engine_views import list_engines
from pilothouse.app.engines import own_drivers
from pilothouse.domain.errors import InvalidRequest, NotSupported, OperationFailed
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import InstallableDriver, Installed, Launch, Machine
from pilothouse.testing.conformance_engine import ask

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
    spec = DeploymentSpec(model="m", engine="torchserve", engine_options=options)
    return TorchServeDriver().launch("m-1-0", spec, ARTIFACT, machine)


def test_its_http_is_on_private_sockets_and_nothing_can_be_registered() -> None:
    settings = dict(line.split("=", 1) for line in launched().config.splitlines())

    assert {
        settings[f"{door}_address"].partition(":")[0] for door in ("inference", "management", "metrics")
    } == {"unix"}
    assert settings["grpc_inference_address"] == settings["grpc_management_address"] == "127.0.0.1"
    assert settings["enable_model_api"] == settings["disable_token_authorization"] == "false"


def test_the_archive_names_the_weights_and_holds_none() -> None:
    files = launched(context_tokens=512, threads=1, queue_size=5).files

    manifest = json.loads(files["store/model/MAR-INF/MANIFEST.json"])
    config = json.loads(files["store/model/model-config.yaml"])

    assert manifest["model"]["handler"] in {path.rpartition("/")[2] for path in files}
    assert config["pilothouse"] == {"folder": ARTIFACT.path, "threads": 1, "context_tokens": 512}
    assert config["jobQueueSize"] == 5
    assert not any("models" in word for word in launched().argv)


@pytest.mark.parametrize(
    ("memory_bytes", "options", "fault"),
    [
        (500_000_000, {}, "does not fit: weights 270 MB"),
        (8 * 10**9, {"context_tokens": 9000}, "9000 is more than the 8192 that the model has"),
        (8 * 10**9, {"slots": 2}, "one request at a time.*`replicas`"),
    ],
)
def test_what_cannot_run_is_refused(memory_bytes: int, options: dict[str, int], fault: str) -> None:
    with pytest.raises((OperationFailed, InvalidRequest), match=fault):
        launched(memory_bytes, **options)


def test_what_nobody_maintains_is_marked() -> None:
    (view,) = [one for one in list_engines(own_drivers()) if one.name == "torchserve"]

    assert "legacy" in view.note


@pytest.fixture
def with_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Installed]:
    """What is installed with the engine here and a Java of some version, or none."""
    here = Installed(ok=True, version=VERSION)
    monkeypatch.setattr(torchserve, "look", lambda *_, **__: here)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def installed(version: str) -> Installed:
        if version:
            (tmp_path / "bin").mkdir()
            (tmp_path / "bin" / "java").touch(mode=0o755)
            (tmp_path / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
        return TorchServeDriver().installed()

    return installed


@pytest.mark.parametrize(
    ("version", "missing"),
    [
        ("17.0.15", ""),
        ("25", ""),
        ("11.0.2", "Java 17 or later, for .*java is 11.0.2"),
        ("1.8.0_402", "Java 17 or later, for .*java is 1.8.0_402"),
        ("", "Java 17 or later$"),
    ],
)
def test_a_java_that_is_missing_or_too_old_is_named_with_the_fix(
    version: str, missing: str, with_java: Callable[[str], Installed]
) -> None:
    found = with_java(version)

    assert found.ok == (not missing)
    if missing:
        assert found.install_command == "apt-get install openjdk-17-jre-headless"
        assert re.match(missing, found.missing)


def test_what_it_is_installed_from_is_pinned() -> None:
    driver = TorchServeDriver()
    assert isinstance(driver, InstallableDriver)

    pinned = Path(driver.environment.constraints).read_text().splitlines()

    assert f"torchserve=={VERSION}" in pinned
    assert f"{sys.prefix}/engines/torchserve/bin/python" in launched().argv
    assert all("==" in line for line in pinned)


def test_messages_become_roles_and_texts() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "it."}]},
        {"role": "assistant", "content": "It."},
    ]

    asked = generator_request(ask(messages, kind="chat", stop=["x"], seed=1), engine="e")

    assert asked == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say it."},
            {"role": "assistant", "content": "It."},
        ],
        "max_tokens": 8,
        "temperature": 0.0,
        "stop": ["x"],
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"choices": 2}, "n"), ({"min_p": 0.1}, "min_p"), ({"logprobs": True}, "logprobs")],
)
def test_what_the_generator_would_ignore_is_refused_by_name(changes: dict[str, object], field: str) -> None:
    with pytest.raises(NotSupported, match=f"engine e: {field}"):
        generator_request(ask(**changes), engine="e")
