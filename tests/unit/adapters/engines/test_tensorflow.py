import json
import sys
from pathlib import Path

import pytest

from pilothouse.adapters.engines.tensorflow import VERSION, TensorFlowDriver
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.ports.engine import InstallableDriver, Launch, Machine

ARTIFACT = Artifact(
    name="m",
    digest="sha256:aa",
    path="/models/{folder}",
    bytes=20_000_000,
    header=ModelHeader(architecture="savedmodel", context_tokens=0, quantization="", parameters=0),
    format="savedmodel",
)


def launched(memory_bytes: int = 8 * 10**9, **options: object) -> Launch:
    spec = DeploymentSpec(model="m", engine="tensorflow", engine_options=options)
    machine = Machine(cpus=4, memory_available_bytes=memory_bytes)
    return TensorFlowDriver().launch("m-1-0", spec, ARTIFACT, machine)


def test_it_runs_in_its_own_environment_at_a_private_socket() -> None:
    launch = launched()

    assert launch.argv[0] == f"{sys.prefix}/engines/tensorflow/bin/python"
    assert launch.argv[-1] == "{config}"
    assert launch.address == "unix:{socket}"
    assert not any("models" in word for word in launch.argv)


def test_what_the_deployment_says_of_the_model_reaches_connect() -> None:
    launch = launched(context_tokens=512, piece_tokens=4, inputs={"prompt": "words"}, threads=2, slots=3)

    assert launch.context_tokens == 512
    assert launch.options["inputs"] == {"prompt": "words"}
    assert launch.options["piece_tokens"] == 4
    assert (json.loads(launch.config)["threads"], json.loads(launch.config)["slots"]) == (2, 3)


def test_what_does_not_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(OperationFailed, match="twice its 20 MB take 940 MB, and 500 MB are free"):
        launched(500_000_000)


def test_a_role_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(OperationFailed, match=r"engine_options.outputs.txt: no such role; .*finish_reason"):
        launched(outputs={"txt": "a"})


def test_what_it_is_installed_from_is_pinned() -> None:
    driver = TensorFlowDriver()
    assert isinstance(driver, InstallableDriver)

    pinned = Path(driver.environment.constraints).read_text().splitlines()

    assert f"tensorflow-cpu=={VERSION}" in pinned
    assert all("==" in line for line in pinned)
