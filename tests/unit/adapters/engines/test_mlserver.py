"""How a replica of MLServer is started: what it is told, what it is not, and what is refused before."""

import json

import pytest

from pilothouse.adapters.engines.mlserver import MLServerDriver, raise_fault
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    NotSupported,
    OperationFailed,
    PilothouseError,
)
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.tensors import Inferred
from pilothouse.ports.engine import Launch, Machine

GB = 10**9


def launched(*, pooling: str = "", context: int = 512, size: int = GB, **options: int) -> Launch:
    header = ModelHeader(
        architecture="onnx", context_tokens=context, quantization="", parameters=0, pooling=pooling
    )
    artifact = Artifact(name="m", digest="d", path="/models/m", bytes=size, header=header, format="onnx")
    spec = DeploymentSpec(model="m", engine="mlserver", engine_options=options)
    return MLServerDriver().launch("", spec, artifact, Machine(cpus=4, memory_available_bytes=4 * GB))


def test_its_settings_open_no_port_and_hold_no_stream_back():
    launch = launched(slots=3, threads=2)

    settings, model = (json.loads(launch.files[name]) for name in ("settings.json", "model-settings.json"))

    assert settings["metrics_endpoint"] is None
    assert not settings["gzip_enabled"]
    assert model["parameters"] == {
        "uri": "/models/m",
        "extra": {"threads": 2, "context_tokens": 512, "places": 3},
    }
    assert launch.address == "unix:{socket}"
    assert not launch.ports
    assert launch.env.keys() <= {
        "LANG", "PATH", "HOME", "TMPDIR", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS",
    }  # fmt: skip


def test_a_model_that_pools_is_for_vectors():
    assert launched(pooling="mean").options == {"task": "embedding"}
    assert launched().options == {"task": "text"}


def test_what_cannot_fit_is_refused_with_its_numbers():
    with pytest.raises(OperationFailed, match="3000 MB"):
        launched(size=3 * GB)
    with pytest.raises(OperationFailed, match="1024 is more than the 512"):
        launched(context_tokens=1024)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("too_long", ContextLengthExceeded),
        ("no_template", NotSupported),
        ("template_refused", InvalidRequest),
        ("no_text", NotSupported),
    ],
)
def test_what_its_answers_say_cannot_be_done_is_a_typed_error(fault: str, error: type[PilothouseError]):
    said = Inferred(outputs=(), parameters={"fault": fault, "prompt_tokens": 600, "limit": 512})

    with pytest.raises(error) as raised:
        raise_fault(said)

    assert fault != "too_long" or "600 tokens" in raised.value.message
