"""
Archives that prove themselves: a plain tar whose last member lists all others with their SHA-256.

Written whole or not at all, for its owner alone. Read member by member, into a
folder of its own, and trusted only when every digest was found right: only
regular files, only names that the reader expects, none twice, none left out.
No compression: what goes in is sealed, and does not shrink.
"""

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

MANIFEST = "manifest.json"
_LONGEST_MANIFEST = 64 << 20
_PIECE = 1 << 20


class ArchiveBroken(Exception):
    """It is not whole, or not what it says. Nothing of it is to be used."""


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    bytes: int


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """`about` is the writer's own."""

    members: dict[str, Member]
    about: dict[str, Any]


class ArchiveWriter:
    """Made by `writing`."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members: dict[str, Member] = {}

    def add(self, name: str, path: Path, *, size_bytes: int | None = None) -> None:
        """
        Add a file, or only its first `size_bytes`: of a file that grows, as much as was asked for.

        Raises:
            FileNotFoundError: It is gone.
            ArchiveBroken: It is shorter by now.
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size if size_bytes is None else size_bytes
            hashing = _Hashing(file)
            try:
                self._tar.addfile(_plain(name, size), hashing)
            except OSError as exc:
                if hashing.bytes < size:
                    raise ArchiveBroken(f"{path} became shorter while it was copied") from exc
                raise
        self._members[name] = Member(hashing.digest.hexdigest(), size)

    def finish(self, about: dict[str, Any]) -> None:
        data = msgspec.json.encode(Manifest(self._members, about))
        self._tar.addfile(_plain(MANIFEST, len(data)), io.BytesIO(data))


@contextmanager
def writing(path: Path) -> Iterator[ArchiveWriter]:
    """
    Write an archive that appears under its name when the block ends well. The block calls `finish`.

    Raises:
        FileExistsError: Something has that name: it is never replaced.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                yield ArchiveWriter(tar)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(unfinished)
    finally:
        unfinished.unlink()


def extract(path: Path, into: Path, *, expected: re.Pattern[str]) -> Manifest:
    """
    Unpack into an empty folder and check everything.

    Args:
        expected: What names may match, as a whole; `/` makes folders.

    Raises:
        ArchiveBroken: What is wrong. What was unpacked so far must be thrown away.
        FileNotFoundError: No such archive.
    """
    found: dict[str, Member] = {}
    manifest: Manifest | None = None
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if manifest is not None:
                    raise ArchiveBroken(f"{info.name!r} comes after the manifest")
                _check(info, found, expected)
                source = tar.extractfile(info)
                if source is None:
                    raise ArchiveBroken(f"{info.name!r} holds nothing that can be read")
                with source:
                    if info.name == MANIFEST:
                        manifest = _manifest(source.read(_LONGEST_MANIFEST))
                    else:
                        found[info.name] = _unpack(source, into / info.name, info.size)
    except tarfile.TarError as exc:
        raise ArchiveBroken(f"it is cut short, or no archive: {exc}") from exc
    if manifest is None:
        raise ArchiveBroken("it is cut short: its list of members is missing")
    _compare(found, manifest)
    return manifest


def _check(info: tarfile.TarInfo, found: dict[str, Member], expected: re.Pattern[str]) -> None:
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise ArchiveBroken(f"{info.name!r} is not a plain file")
    if info.name in found:
        raise ArchiveBroken(f"{info.name!r} is in it twice")
    if info.name != MANIFEST and not expected.fullmatch(info.name):
        raise ArchiveBroken(f"{info.name!r} does not belong into such an archive")


def _manifest(data: bytes) -> Manifest:
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as exc:
        raise ArchiveBroken(f"its list of members cannot be read: {exc}") from exc


def _unpack(source: Any, path: Path, size: int) -> Member:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    hashing = _Hashing(source)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        while piece := hashing.read(_PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if hashing.bytes != size:
        raise ArchiveBroken(f"{path.name!r} is cut short")
    return Member(hashing.digest.hexdigest(), size)


def _compare(found: dict[str, Member], manifest: Manifest) -> None:
    if missing := manifest.members.keys() - found.keys():
        raise ArchiveBroken(f"{sorted(missing)[0]!r} is missing")
    for name, member in found.items():
        if manifest.members.get(name) != member:
            raise ArchiveBroken(f"{name!r} is not what was put in: its digest differs")


def _plain(name: str, size: int) -> tarfile.TarInfo:
    """Nothing of the file's owner or times: they mean nothing elsewhere."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


class _Hashing(io.RawIOBase):
    """Reads through, adding up digest and length."""

    def __init__(self, source: BinaryIO | Any) -> None:
        self._source = source
        self.digest = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        self.digest.update(data)
        self.bytes += len(data)
        return data
