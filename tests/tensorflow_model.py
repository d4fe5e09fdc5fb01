"""A small SavedModel that generates text, made by the tool that the documentation shows."""

import subprocess
from pathlib import Path

import pytest

from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines.tensorflow import TensorFlowDriver
from pilothouse.app.inspect_folder import inspect
from pilothouse.domain.model import Artifact

TOOL = Path(__file__).parents[1] / "tools" / "train_savedmodel.py"
FOUND = TensorFlowDriver().installed()
needs_tensorflow = pytest.mark.skipif(
    not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"
)
STEPS = 20
"""Enough for weights that say something; what it says is nobody's concern."""


def make_savedmodel(folder: Path, *, steps: int = STEPS) -> Path:
    argv = [python_of("tensorflow"), "-I", str(TOOL), str(folder), "--steps", str(steps)]
    done = subprocess.run(argv, timeout=600, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def artifact_of(folder: Path) -> Artifact:
    found = inspect(folder)
    return Artifact(
        name="tiny",
        digest="sha256:aa",
        path=str(folder),
        bytes=found.bytes,
        header=found.header,
        format="savedmodel",
    )
