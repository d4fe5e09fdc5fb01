import json
import sys
from pathlib import Path

import pytest

from pilothouse.adapters.engines.triton import VERSION, TritonDriver
from pilothouse.adapters.targets._book import Book
from pilothouse.adapters.targets._places import Places
from pilothouse.adapters.targets._shared_memory import prefix
from pilothouse.domain.errors import InvalidRequest, OperationFailed
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import InstallableDriver, Launch, Machine

ARTIFACT = Artifact(
    name="m",
    digest="sha256:aa",
    path='/models/a "folder"',
    bytes=270_000_000,
    header=ModelHeader(
        architecture="llama",
        context_tokens=8192,
        quantization="BF16",
        parameters=1,
        layers=30,
        kv_heads=3,
        head_dim=64,
    ),
    format="safetensors",
)


def launched(memory_bytes: int = 8 * 10**9, **options: object) -> Launch:
    machine = Machine(cpus=4, memory_available_bytes=memory_bytes)
    spec = DeploymentSpec(model="m", engine="triton", engine_options=options)
    return TritonDriver().launch("m-1-0", spec, ARTIFACT, machine)


def test_it_listens_at_a_private_socket_and_at_no_port() -> None:
    launch = launched()
    server = json.loads(launch.config)["argv"]

    assert launch.address == "unix:{socket}"
    assert launch.ports == ()
    assert "--http-address=unix:{socket}" in server
    assert {"--allow-grpc=false", "--allow-metrics=false"} <= set(server)


def test_over_grpc_it_listens_at_a_private_socket_and_at_no_port() -> None:
    launch = launched(protocol="grpc")
    server = json.loads(launch.config)["argv"]

    assert launch.address == "unix:{folder}/g:1"
    assert launch.ports == ()
    assert launch.options["protocol"] == "grpc"
    assert {"--grpc-address=unix:{folder}/g", "--allow-http=false", "--allow-metrics=false"} <= set(server)


def test_what_it_is_given_stands_in_its_repository() -> None:
    config = launched(slots=3, max_queue=9, threads=2, context_tokens=512).files["models/model/config.pbtxt"]

    for name, value in {"slots": 3, "max_queue": 9, "threads": 2, "context_tokens": 512}.items():
        assert f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}' in config
    assert r'string_value: "/models/a \"folder\""' in config
    assert "dynamic_batching" not in config


def test_the_model_brings_its_code_and_the_way_to_its_packages() -> None:
    files = launched().files

    assert "class TritonPythonModel" in files["models/model/1/model.py"]
    assert f"{sys.prefix}/engines/triton/lib" in files["models/model/1/pilothouse_model/__init__.py"]
    assert "class Generator" in files["models/model/1/pilothouse_model/_generator.py"]


def test_the_vllm_backend_gets_what_it_publishes() -> None:
    launch = launched(backend="vllm", tensor_parallel=2, pipeline_parallel=3, slots=8)

    arguments = json.loads(launch.files["models/model/1/model.json"])

    assert 'backend: "vllm"' in launch.files["models/model/config.pbtxt"]
    assert (arguments["model"], arguments["max_num_seqs"]) == (ARTIFACT.path, 8)
    assert (arguments["tensor_parallel_size"], arguments["pipeline_parallel_size"]) == (2, 3)
    assert arguments["trust_remote_code"] is False
    assert json.loads(launch.config)["argv"][0] == "/opt/tritonserver/bin/tritonserver"


@pytest.mark.parametrize(
    ("memory_bytes", "options", "fault"),
    [
        (500_000_000, {}, "does not fit: weights 270 MB"),
        (8 * 10**9, {"context_tokens": 9000}, "9000 is more than the 8192 that the model has"),
        (8 * 10**9, {"backend": "tensorrtllm"}, "compiled for one kind of GPU.*base_url"),
        (8 * 10**9, {"backend": "text"}, "there already.*base_url"),
        (8 * 10**9, {"tensor_parallel": 2}, "vLLM backend alone; fix: leave them out"),
        (8 * 10**9, {"backend": "text", "pipeline_parallel": 2}, "vLLM backend alone"),
    ],
)
def test_what_cannot_run_is_refused(memory_bytes: int, options: dict[str, object], fault: str) -> None:
    with pytest.raises((OperationFailed, InvalidRequest), match=fault):
        launched(memory_bytes, **options)


def test_its_shared_memory_is_called_after_the_replica(tmp_path: Path) -> None:
    places = Places(Book(tmp_path / "run", tmp_path / "logs"), "m-1-0", launched())
    places.make()

    (config,) = [json.loads(path.read_text()) for path in (tmp_path / "run").glob("*.config")]

    pieces = prefix(Book(tmp_path / "run", tmp_path / "logs").home_id, "m-1-0")
    assert f"--backend-config=python,shm-region-prefix-name={pieces}" in config["argv"]


def test_a_secret_goes_into_the_header_that_its_server_asks_for() -> None:
    def head(**options: object) -> str:
        engine = TritonDriver().connect(
            "http://127.0.0.1:8000",
            model="m",
            context_tokens=0,
            secret=Secret("s3cret"),
            allow_private=True,
            options=options,
        )
        return engine.door.headers

    assert "authorization: Bearer s3cret\r\n" in head()
    assert "triton-key: s3cret\r\n" in head(secret_header="triton-key")


def test_what_it_is_installed_from_is_pinned() -> None:
    driver = TritonDriver()
    assert isinstance(driver, InstallableDriver)

    pinned = Path(driver.environment.constraints).read_text().splitlines()

    assert f"nvidia-pytriton=={VERSION}" in pinned
    assert all("==" in line for line in pinned)
