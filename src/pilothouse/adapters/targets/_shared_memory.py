"""
The shared memory of a replica's processes: what its pieces are called, and that they go with them.

One that is killed leaves its pieces behind, and only their names say whose they were.
"""

import hashlib
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108 - the system's own place


def prefix(home_id: str, name: str) -> str:
    """What the names of its pieces begin with: no other's begin so."""
    return f"pilothouse_{home_id}_{hashlib.sha256(name.encode()).hexdigest()[:12]}_"


def clear(home_id: str, name: str) -> None:
    """Of processes that are no more."""
    for piece in FOLDER.glob(f"{prefix(home_id, name)}*"):
        piece.unlink(missing_ok=True)
