import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from pilothouse.adapters.engines import _environment
from pilothouse.adapters.engines._sglang_child import arguments
from pilothouse.adapters.engines.sglang import SglangDriver
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import Launch, Machine

HEADER = ModelHeader(architecture="llama", context_tokens=8192, quantization="BF16", parameters=1)
ARTIFACT = Artifact(
    name="m", digest="sha256:aa", path="/models/m", bytes=1, header=HEADER, format="safetensors"
)


def launched(**options: object) -> Launch:
    machine = Machine(cpus=4, memory_available_bytes=16 * 10**9)
    spec = DeploymentSpec(model="m", engine="sglang", engine_options=options)
    return SglangDriver().launch("m-1-0", spec, ARTIFACT, machine)


def test_the_key_is_in_its_config_and_never_in_a_command_line() -> None:
    launch = launched()
    config = json.loads(launch.config)

    assert launch.argv[0] == f"{sys.prefix}/engines/sglang/bin/python"
    assert not any("token" in word for word in launch.argv)
    assert config["key"] == "{token}"
    assert arguments(config)[-2:] == ["--api-key", "{token}"]


def test_it_listens_on_loopback_and_serves_one_name() -> None:
    told = json.loads(launched().config)["arguments"]

    assert told[told.index("--host") + 1] == "127.0.0.1"
    assert told[told.index("--served-model-name") + 1] == "model"
    assert "--trust-remote-code" not in told
    assert "--disable-radix-cache" in told


def test_options_become_its_published_arguments() -> None:
    told = json.loads(
        launched(
            tensor_parallel=4, quantization="awq", memory_share=0.5, prefix_caching=True, tool_parser="qwen"
        ).config
    )["arguments"]

    said = dict(pairwise(told))
    assert said["--tensor-parallel-size"] == "4"
    assert said["--quantization"] == "awq"
    assert said["--mem-fraction-static"] == "0.5"
    assert said["--tool-call-parser"] == "qwen"
    assert "--disable-radix-cache" not in told


@pytest.mark.parametrize(
    ("options", "more"), [(launched().options, set()), ({}, {"tools", "image", "audio", "file"})]
)
async def test_it_takes_token_ids_and_biases_started_and_attached(
    options: dict[str, object], more: set[str]
) -> None:
    engine = SglangDriver().connect(
        "http://127.0.0.1:1/v1", model="m", context_tokens=9, allow_private=True, options=options
    )

    assert engine.info.can == {"token_ids", "logit_bias"} | more
    await engine.aclose()


@pytest.mark.parametrize(
    ("version", "ok", "missing"),
    [
        ("0.5.23", True, ""),
        ("0.5.9", False, "a newer one (sglang 0.5.9 has known holes"),
        ("", False, "an environment with sglang"),
    ],
)
def test_a_version_with_holes_is_not_started(
    version: str, ok: bool, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_environment.sys, "prefix", str(tmp_path))
    packages = tmp_path / "engines/sglang/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    if version:
        (packages / f"sglang-{version}.dist-info").mkdir()

    found = SglangDriver().installed()

    assert found.ok is ok
    assert found.missing.startswith(missing)
