"""The model files of a home, for whoever has no server at hand: checked, and nothing else."""

from pathlib import Path

from pilothouse.adapters.blobs.disk import DiskBlobs
from pilothouse.config import Settings
from pilothouse.kit.clock import SystemClock


def verify_file(settings: Settings, digest: str) -> Path:
    """
    Read all of a model file, and say where it lies.

    Raises:
        NotFound: It is not on this machine.
        ModelFileRefused: It is not what was pulled; the message says what to do.
    """
    return DiskBlobs(settings.models_path, SystemClock()).verify(digest)
