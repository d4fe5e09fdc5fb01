import json
from typing import Any

import msgspec
import pytest

from pilothouse.adapters.engines import _llama_child
from pilothouse.adapters.engines.llama_cpp import CHILD, LlamaCppDriver
from pilothouse.adapters.engines.openai import OpenAIDriver
from pilothouse.domain.errors import InvalidRequest, NotSupported, OperationFailed
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import Launch, Machine

HEADER = ModelHeader(
    architecture="llama",
    context_tokens=8192,
    quantization="Q4_1",
    parameters=134_515_008,
    layers=30,
    embedding_length=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    tokens=49152,
)
ARTIFACT = Artifact(
    name="smollm2", digest="sha256:aa", path="/models/it's {odd}.gguf", bytes=98_000_000, header=HEADER
)


def launched(
    *, cpus: int = 4, artifact: Artifact = ARTIFACT, **options: Any
) -> tuple[Launch, dict[str, Any]]:
    machine = Machine(cpus=cpus, memory_available_bytes=8 * 10**9, workers=1)
    spec = DeploymentSpec(model="smollm2", engine_options=dict(options))
    launch = LlamaCppDriver(python="/env/bin/python").launch("m-1-0", spec, artifact, machine)
    return launch, json.loads(launch.config)


def test_a_launch_is_a_module_and_places_to_fill_in() -> None:
    launch, _ = launched()

    assert launch.argv[:4] == ("/env/bin/python", "-I", "-m", CHILD)
    places = {"{name}", "{home}", "{socket}", "{config}", "{log}"}
    assert places <= set(launch.argv)
    assert launch.address == "unix:{socket}"


def test_the_child_understands_its_command_line() -> None:
    launch, _ = launched()

    options = _llama_child.arguments().parse_args(launch.argv[4:])

    assert (options.replica, options.socket, options.log) == ("{name}", "{socket}", "{log}")


def test_no_path_and_no_secret_stands_in_the_command_line_or_the_environment() -> None:
    launch, config = launched()

    assert config["model_path"] == ARTIFACT.path
    assert not any("models" in word for word in launch.argv)
    assert launch.env == {"LANG": "C.UTF-8"}


def test_sizes_are_those_of_the_sizing() -> None:
    launch, config = launched()

    assert (launch.slots, launch.context_tokens) == (4, 4096)
    assert (config["slots"], config["context_tokens"], config["batch_tokens"]) == (4, 4096, 64)
    assert launch.memory_bytes > 4 * 4096 * 23_040 + ARTIFACT.bytes


def test_what_was_asked_for_is_taken_over() -> None:
    launch, config = launched(slots=2, context_tokens=1024, threads=3)

    assert (launch.slots, launch.context_tokens, config["threads"]) == (2, 1024, 3)


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (8, 7)])
def test_one_processor_stays_with_the_gateway(cpus: int, threads: int) -> None:
    assert launched(cpus=cpus)[1]["threads"] == threads


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(OperationFailed, match="does not fit"):
        launched(slots=64, context_tokens=8192)


def test_a_model_with_pooling_embeds() -> None:
    embedder = msgspec.structs.replace(
        ARTIFACT,
        header=msgspec.structs.replace(HEADER, architecture="bert", context_tokens=512, pooling="mean"),
    )

    _, config = launched(artifact=embedder)

    assert config["embeds"] is True
    assert config["batch_tokens"] == 512


class Recorder:
    """Stands in for CommonParams: keeps what is set, at any depth."""

    def __getattr__(self, name: str) -> "Recorder":
        child = Recorder()
        object.__setattr__(self, name, child)
        return child


def test_nothing_is_shared_between_slots_and_nothing_is_forgotten_in_silence() -> None:
    _, config = launched(slots=2, context_tokens=1024)

    params = _llama_child.parameters(Recorder(), config, "/run/x.sock")

    assert (params.n_ctx, params.n_parallel) == (2048, 2)
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (3, 3)
    assert (params.n_batch, params.n_ubatch) == (64, 64)
    assert params.hostnames == ["/run/x.sock"]
    assert params.model.path == ARTIFACT.path
    assert params.model_alias == {"smollm2"}
    assert not any(
        (
            params.kv_unified,
            params.cache_prompt,
            params.cache_ram_mib,
            params.cache_idle_slots,
            params.slot_prompt_similarity,
            params.ctx_shift,
            params.fit_params,
            params.ui,
            params.endpoint_props,
            params.slot_save_path,
        )
    )


def test_shares_of_gpus_are_told_in_llama_cpps_own_form() -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    _, config = launched(split_mode="row", tensor_split=[3, 1], main_gpu=1)

    params = _llama_child.parameters(xllamacpp.CommonParams(), config, "/run/x.sock")

    assert (params.split_mode, params.main_gpu) == (xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_ROW, 1)
    assert [share for share in params.tensor_split if share] == [3.0, 1.0]


def test_its_rpc_is_refused_with_the_reason() -> None:
    with pytest.raises(
        InvalidRequest, match=r"rpc_servers: llama\.cpp's RPC sends weights and prompts unencrypted"
    ):
        launched(rpc_servers=["10.0.0.2:50052"])


@pytest.mark.engine
def test_every_parameter_that_is_set_exists() -> None:
    """CommonParams takes any of its names and no others, so that a renamed one cannot be missed."""
    xllamacpp = pytest.importorskip("xllamacpp")
    _, config = launched()

    params = _llama_child.parameters(xllamacpp.CommonParams(), config, "/run/x.sock")

    assert params.cache_prompt is False
    with pytest.raises(AttributeError):
        params.no_such_parameter = 1


def test_a_driver_that_attaches_starts_nothing() -> None:
    machine = Machine(cpus=1, memory_available_bytes=1)

    with pytest.raises(NotSupported):
        OpenAIDriver().launch("m", DeploymentSpec(), ARTIFACT, machine)
