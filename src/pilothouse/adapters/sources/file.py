"""Source `file:`: a GGUF file or a model's folder, copied so that the original stays the user's."""

import os
import shutil
from pathlib import Path

from pilothouse.adapters.sources._disk import (
    FreeBytes,
    chunks_of,
    disk_failure,
    free_bytes,
    require_room,
    write_chunks,
)
from pilothouse.adapters.sources._folder import copy_folder
from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound
from pilothouse.domain.model_file import HEAD_BYTES, MAX_MODEL_BYTES, another_file, why_not_gguf
from pilothouse.domain.model_name import clean_name
from pilothouse.kit.digest import NotRegular, open_regular
from pilothouse.ports.source import Fetched, Identity, Progress


class FileSource:
    scheme = "file"

    def __init__(self, *, free: FreeBytes = free_bytes) -> None:
        self._free = free

    def identify(self, reference: str) -> Identity:
        return Identity(name=clean_name(_path(reference).stem))

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        path = _path(reference)
        try:
            fetched = (
                self._copy_folder(path, workdir / "folder", progress)
                if path.is_dir()
                else self._copy(path, workdir / "model.gguf", progress)
            )
        except NotRegular as exc:
            raise ModelFileRefused(str(exc)) from exc
        except FileNotFoundError as exc:
            raise NotFound(f"there is no file {path}") from exc
        except OSError as exc:
            raise disk_failure(f"reading {path}", exc) from exc
        if expect and fetched.source_digest != expect:
            raise another_file(str(path), found=fetched.source_digest, expected=expect)
        return fetched

    def _copy_folder(self, path: Path, target: Path, progress: Progress) -> Fetched:
        shutil.rmtree(target, ignore_errors=True)
        manifest = copy_folder(path, target, progress, free=self._free)
        return Fetched(path=target, source_digest=manifest.digest, manifest=manifest)

    def _copy(self, path: Path, target: Path, progress: Progress) -> Fetched:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_MODEL_BYTES:
                raise ModelFileRefused(f"{path} has {size} bytes; at most {MAX_MODEL_BYTES} are accepted")
            if fault := why_not_gguf(file.read(HEAD_BYTES)):
                raise ModelFileRefused(f"{path} is {fault}")
            file.seek(0)
            require_room(target.parent, size, path.name, free=self._free)
            digest = write_chunks(chunks_of(file), target, size_bytes=size, what=path.name, progress=progress)
        return Fetched(path=target, source_digest=digest)


def _path(reference: str) -> Path:
    """`/a/b.gguf` or `~/b.gguf`; not `//host/a`, which may mean two things."""
    if reference.startswith("//"):
        raise InvalidRequest("write file:/path/to/model.gguf, with one slash", param="source")
    if "\0" in reference:
        raise InvalidRequest("a path holds no NUL character", param="source")
    try:
        path = Path(reference).expanduser()
    except RuntimeError as exc:
        raise InvalidRequest(f"file:{reference}: there is no such user", param="source") from exc
    if not path.is_absolute():
        raise InvalidRequest(
            f"file:{reference} is not absolute: write file:/path/to/model.gguf or file:~/model.gguf",
            param="source",
        )
    return path
