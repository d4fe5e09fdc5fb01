"""Folders for sockets and secrets: ours alone, or an error."""

import os
import stat
from pathlib import Path


def make_private(path: Path) -> Path:
    """
    Make the folder (mode 0700), or make sure that the one there is ours and closed to others.

    A folder in a shared place may have been put there by somebody else, or be a
    link that leads elsewhere: neither is used.

    Raises:
        PermissionError: It belongs to another user, or is a link.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{path} is a link or belongs to another user: remove it and try again")
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path
