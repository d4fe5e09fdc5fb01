"""Listening on a Unix socket that only its owner reaches, and that at most one process answers."""

import socket
from pathlib import Path

from pilothouse.kit.folders import make_private


def listen_privately(path: Path) -> socket.socket:
    """
    Bind at `path` (0600, in a folder of 0700). A file that a dead process left is replaced.

    Raises:
        FileExistsError: Somebody answers there.
        PermissionError: The folder is not ours.
    """
    make_private(path.parent)
    if answers(path):
        raise FileExistsError(f"somebody answers at {path}")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener


def answers(path: Path) -> bool:
    """Whether a process accepts connections at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:  # its queue is full: it listens
            return True
        except OSError:
            return False
        return True
