"""
Copies the folder of a model, file by file, and refuses what may not be in one.

The one idea: names are judged before anything is copied, contents while they are
read, and what is read is opened as a plain file that lies inside the folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pilothouse.adapters.sources._disk import FreeBytes, chunks_of, require_room, write_chunks
from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.model_file import HEAD_BYTES, MAX_MODEL_BYTES, what_else
from pilothouse.domain.model_folder import (
    MAX_FILES,
    FolderFile,
    Manifest,
    format_of,
    is_ignored,
    refuse_own_code,
    why_not_taken,
)
from pilothouse.kit.digest import open_regular
from pilothouse.ports.source import Progress

MAX_CONFIG_BYTES = 1024 * 1024


def copy_folder(folder: Path, target: Path, progress: Progress, *, free: FreeBytes) -> Manifest:
    """
    Raises:
        ModelFileRefused: It holds what may not be loaded; nothing was copied then.
        OSError: It cannot be read.
    """
    files = sorted(_files(folder))
    if fault := next(((path, why) for path in files if (why := why_not_taken(path))), None):
        raise ModelFileRefused(f"{folder}/{fault[0]} is {fault[1]}")
    format_of(files)
    inside = {path: _inside(folder, path) for path in files}
    total = sum(path.stat().st_size for path in inside.values())
    if total > MAX_MODEL_BYTES:
        raise ModelFileRefused(f"{folder} has {total} bytes; at most {MAX_MODEL_BYTES} are accepted")
    require_room(target.parent, total, folder.name, free=free)
    return Manifest(tuple(_copy(path, inside[path], target, progress) for path in files))


def _files(folder: Path) -> Iterator[str]:
    count = 0
    for parent, folders, names in os.walk(folder, followlinks=False):
        here = Path(parent)
        for name in folders:
            path = (here / name).relative_to(folder).as_posix()
            if (here / name).is_symlink() and not is_ignored(path):
                raise ModelFileRefused(f"{folder}/{path} is a link to a folder: put the folder itself there")
        for name in names:
            path = (here / name).relative_to(folder).as_posix()
            if is_ignored(path):
                continue
            count += 1
            if count > MAX_FILES:
                raise ModelFileRefused(f"{folder} holds more than {MAX_FILES} files; that is no model")
            yield path


def _inside(folder: Path, path: str) -> Path:
    """The file itself, for one may be a link to another of the same folder."""
    found = (folder / path).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise ModelFileRefused(
            f"{folder}/{path} is a link that leads out of the folder, to {found}: put the file itself there"
        )
    return found


def _copy(path: str, file: Path, target: Path, progress: Progress) -> FolderFile:
    copy = target / path
    copy.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        if not path.endswith(".safetensors") and (what := what_else(opened.read(HEAD_BYTES))):
            raise ModelFileRefused(f"{file} is {what}")
        opened.seek(0)
        digest = write_chunks(chunks_of(opened), copy, size_bytes=size, what=path, progress=progress)
    if path.endswith(".json") and size <= MAX_CONFIG_BYTES:
        refuse_own_code(path, copy.read_bytes())
    return FolderFile(path, digest, size)
