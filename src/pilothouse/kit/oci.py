"""
An artefact of one file as an OCI image layout in a tar: written as a stream, read and believed by digest.

What the file is, is the caller's business: media types are his. Plain tar, since
weights do not shrink. Source: OCI image specification 1.1 (image layout, image
manifest, content descriptors, guidelines for artefact usage).
"""

import re
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import msgspec
from msgspec import Struct, field

from pilothouse.kit.digest import NotRegular, open_regular

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
REF_NAME = "org.opencontainers.image.ref.name"
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Of a manifest, as the OCI distribution specification bounds it."""
MAX_MEMBERS = 10_000
CHUNK_BYTES = 1024 * 1024
T = TypeVar("T")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class LayoutBroken(ValueError):
    """It is no image layout of one file, or not what its digests say."""


class Descriptor(Struct, frozen=True, omit_defaults=True):
    mediaType: str  # noqa: N815 - the specification's names
    digest: str
    size: int
    artifactType: str = ""  # noqa: N815
    annotations: dict[str, str] = field(default_factory=dict)


class Manifest(Struct, frozen=True, omit_defaults=True):
    config: Descriptor
    layers: list[Descriptor]
    schemaVersion: int = 0  # noqa: N815
    mediaType: str = ""  # noqa: N815
    artifactType: str = ""  # noqa: N815
    annotations: dict[str, str] = field(default_factory=dict)


class Index(Struct, frozen=True, omit_defaults=True):
    manifests: list[Descriptor]
    schemaVersion: int = 0  # noqa: N815
    mediaType: str = ""  # noqa: N815


class Artefact(Struct, frozen=True, kw_only=True):
    """What to write. `digest` and `size` are of `layer`, and known to be right."""

    artifact_type: str
    config_type: str
    config: bytes
    layer_type: str
    layer: Path
    digest: str
    size: int
    title: str
    reference: str
    """The tag that it is known by."""


def layout_chunks(artefact: Artefact) -> Iterator[bytes]:
    """
    The tar, piece by piece; the documents come first, so that a reader knows what follows.

    Raises:
        LayoutBroken: The file became shorter meanwhile.
    """
    config = Descriptor(artefact.config_type, _digest(artefact.config), len(artefact.config))
    layer = Descriptor(
        artefact.layer_type, artefact.digest, artefact.size, annotations={TITLE: artefact.title}
    )
    manifest = msgspec.json.encode(
        Manifest(config, [layer], 2, MANIFEST_TYPE, artifactType=artefact.artifact_type)
    )
    entry = Descriptor(
        MANIFEST_TYPE,
        _digest(manifest),
        len(manifest),
        artifactType=artefact.artifact_type,
        annotations={REF_NAME: artefact.reference},
    )
    index = msgspec.json.encode(Index([entry], 2, INDEX_TYPE))
    documents = {
        "oci-layout": _LAYOUT,
        "index.json": index,
        _blob_name(entry.digest): manifest,
        _blob_name(config.digest): artefact.config,
    }
    for name, content in documents.items():
        yield _header(name, len(content)) + _padded(content)
    yield _header(_blob_name(layer.digest), layer.size)
    left = layer.size
    with open_regular(artefact.layer) as file:
        while left and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise LayoutBroken(f"{artefact.title} became {left} bytes shorter while it was written")
    yield bytes(-layer.size % tarfile.BLOCKSIZE) + bytes(2 * tarfile.BLOCKSIZE)


class Layout:
    """
    An image layout that is open for reading: a tar, or a folder.

    Nothing is unpacked: members are read by the digests that the documents name,
    so that no name in it leads anywhere.
    """

    def __init__(self, members: "_Members") -> None:
        self._members = members
        layout = _decode(self._document("oci-layout"), dict[str, Any])
        if layout.get("imageLayoutVersion") != "1.0.0":
            raise LayoutBroken("it is no OCI image layout of version 1.0.0")
        index = _decode(self._document("index.json"), Index)
        if len(index.manifests) != 1:
            raise LayoutBroken(f"it holds {len(index.manifests)} manifests; one is needed")
        self.manifest = _decode(self.document(index.manifests[0]), Manifest)

    def document(self, descriptor: Descriptor) -> bytes:
        """A small blob, verified."""
        if not 0 <= descriptor.size <= MAX_DOCUMENT_BYTES:
            raise LayoutBroken(f"a document of {descriptor.size} bytes; at most {MAX_DOCUMENT_BYTES}")
        with self.blob(descriptor) as file:
            content = file.read(descriptor.size + 1)
        if len(content) != descriptor.size or _digest(content) != descriptor.digest:
            raise LayoutBroken(f"the blob {descriptor.digest} is not what its digest says")
        return content

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[IO[bytes]]:
        """A blob's bytes, not yet verified: whoever reads them compares digest and size."""
        if not _DIGEST.fullmatch(descriptor.digest):
            raise LayoutBroken(f"{descriptor.digest[:80]!r} is no sha256 digest")
        with self._members.open(_blob_name(descriptor.digest)) as file:
            yield file

    def _document(self, name: str) -> bytes:
        with self._members.open(name) as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(content) > MAX_DOCUMENT_BYTES:
            raise LayoutBroken(f"{name} is over {MAX_DOCUMENT_BYTES} bytes")
        return content


@contextmanager
def open_layout(path: Path) -> Iterator[Layout]:
    """
    Read an image layout: a tar file, or a folder.

    Raises:
        LayoutBroken: It is none.
        OSError: It cannot be read.
    """
    try:
        if path.is_dir():
            yield Layout(_Folder(path))
            return
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield Layout(_Tar(tar))
    except NotRegular as exc:
        raise LayoutBroken(str(exc)) from exc
    except tarfile.TarError as exc:
        raise LayoutBroken(f"it is no plain tar: {exc}") from exc


class _Members(Protocol):
    def open(self, name: str) -> AbstractContextManager[IO[bytes]]: ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        path = self._folder / name
        if not path.exists():
            raise LayoutBroken(f"it holds no {name}")
        with open_regular(path) as file:
            yield file


class _Tar:
    """Every member is looked at before any is read: one odd name spoils all."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._found: dict[str, tarfile.TarInfo] = {}
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isdir():
                continue
            if not member.isreg():
                raise LayoutBroken(f"{name[:100]!r} is no regular file")
            if name.startswith("/") or ".." in name.split("/") or "\\" in name:
                raise LayoutBroken(f"the name {name[:100]!r} leads out of the archive")
            if name in self._found:
                raise LayoutBroken(f"it holds {name[:100]!r} twice")
            self._found[name] = member
            if len(self._found) > MAX_MEMBERS:
                raise LayoutBroken(f"it holds more than {MAX_MEMBERS} files")

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        member = self._found.get(name)
        file = self._tar.extractfile(member) if member else None
        if file is None:
            raise LayoutBroken(f"it holds no {name}")
        with file:
            yield file


def _decode(content: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise LayoutBroken(f"a document of it cannot be read: {exc}") from exc


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    """The same for the same content: no time, no owner."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o444
    return member.tobuf(tarfile.GNU_FORMAT)
