"""A pytest plugin: its run is on the compiled request path, in the folder that the environment names."""

import os
import sys
from pathlib import Path

from pilothouse.app import compiled

if not compiled.prefer(Path(os.environ["COMPILED_PATH"])):
    raise RuntimeError("the environment's COMPILED_PATH holds no build")


def pytest_runtest_logfinish(nodeid: str) -> None:
    """A compiled coroutine that waits within `except` leaves what it caught to whoever runs next."""
    if sys.exc_info()[1] is not None:
        raise RuntimeError(f"{nodeid} left an error behind: {sys.exc_info()[1]!r}")
