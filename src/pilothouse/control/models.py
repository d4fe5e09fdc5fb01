"""
Brings models here, and hands them out verified.

Belongs here: the order of a pull (fetch, convert, inspect, adopt) and of a load
(verify). Does not: how a source delivers, how a file is read, where versions are
recorded. The one idea: whatever a file claims, it is believed by its digest only:
recorded at the first pull, checked at every later one and at every load.

All of it blocks: run it in a thread. A progress function that raises ends a pull.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from pilothouse.control.folders import Folders
from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound, OperationFailed
from pilothouse.domain.model import Artifact, ModelHeader, ModelVersion
from pilothouse.domain.model_file import another_file
from pilothouse.domain.model_folder import format_of
from pilothouse.domain.model_name import check_name
from pilothouse.kit.clock import Clock
from pilothouse.kit.folders import make_private
from pilothouse.kit.lockfile import LockTimeout, file_lock
from pilothouse.ports.blobs import Blob, Blobs
from pilothouse.ports.source import Fetched, Identity, Progress, Source

LOCK_TIMEOUT_S = 6 * 3600.0
"""As long as another pull of the same source may take."""
ABANDONED_S = 7 * 24 * 3600.0
"""After so long without a touch, what a cut pull left is deleted."""

Inspect = Callable[[Path], ModelHeader]
"""Reads a file's header or a folder's; raises ModelFileRefused, survives whatever that does to its reader."""
Convert = Callable[[Path, Path, str], None]
"""(folder of a sentence-transformers model, GGUF file to write, name inside it); the same bytes each time."""


class _Pull(Struct, frozen=True, kw_only=True):
    """What one pull is asked for, and where it works."""

    source: str
    name: str
    licence: str
    identity: Identity
    known: ModelVersion | None
    folder: Path
    progress: Progress


class Models:
    def __init__(
        self,
        *,
        sources: Iterable[Source],
        blobs: Blobs,
        folder: Path,
        inspect: Inspect,
        convert: Convert,
        clock: Clock,
    ) -> None:
        """`folder` is where pulls work, best on the disk of `blobs`."""
        self._sources: Mapping[str, Source] = {source.scheme: source for source in sources}
        self._blobs = blobs
        self._folders = Folders(folder.with_name("model-folders"), blobs)
        self._folder = make_private(folder)
        self._inspect = inspect
        self._convert = convert
        self._clock = clock

    def pull(
        self, source: str, *, name: str | None, licence: str, progress: Progress, known: ModelVersion | None
    ) -> ModelVersion:
        """
        Fetch, check and keep a model; the caller records the version that it returns.

        Pulls of one source run one after the other, in this process and in others; who
        waited takes what the other brought.

        Args:
            name: By default made of the source's own.
            licence: By default what the source says, else what the file says.
            known: The version recorded for this very source; the digests must be the same.

        Raises:
            InvalidRequest: Source or name are malformed.
            NotFound: The source has no such thing.
            ModelFileRefused: The file must not be loaded, or is not the one recorded.
            OperationFailed: The network or the disk failed; what was downloaded is continued next time.
        """
        port, reference = self._find(source)
        identity = port.identify(reference)
        key = hashlib.sha256(source.encode()).hexdigest()[:24]
        pull = _Pull(
            source=source,
            name=check_name(name if name is not None else identity.name),
            licence=licence,
            identity=identity,
            known=known if known and known.source == source else None,
            folder=self._folder / key,
            progress=progress,
        )
        try:
            return self._pull_alone(pull, port, reference, key)
        except LockTimeout as exc:
            raise OperationFailed(
                f"another pull of {source} is not done after hours; end it and try again"
            ) from exc
        except OSError as exc:
            raise OperationFailed(f"the pull of {source} cannot work in {self._folder}: {exc}") from exc

    def load(self, version: ModelVersion) -> Artifact:
        """
        The model's file, verified just now: call it right before the file is loaded.

        Raises:
            NotFound: The file is gone; pull the model again.
            ModelFileRefused: The file was changed.
        """
        path = self._verified(version)
        return Artifact(
            name=version.name,
            digest=version.digest,
            path=str(path),
            bytes=version.bytes,
            header=version.header,
            format=version.format,
        )

    def check(self, version: ModelVersion) -> None:
        """
        Read the whole file again, and its header.

        Raises:
            NotFound: The file is gone.
            ModelFileRefused: It was changed, or its header says something else than was recorded.
        """
        header = self._inspect(self._verified(version))
        if header != version.header:
            raise ModelFileRefused(
                f"the header of {version.reference} reads otherwise than it was recorded: the registry was "
                "changed, or another version of Pilothouse reads it. Pull the model again"
            )

    def collect(self, keep: Iterable[str]) -> list[Blob]:
        """Delete blobs whose digest is not in `keep` (and not young), and what cut pulls left long ago."""
        for left in self._folder.iterdir():
            if left.suffix != ".lock" and self._clock.now() - left.stat().st_mtime > ABANDONED_S:
                _remove(left)
        gone = self._blobs.collect(keep)
        self._folders.collect()
        return gone

    def _verified(self, version: ModelVersion) -> Path:
        if version.format == "gguf":
            return self._blobs.verify(version.digest)
        return self._folders.verify(version.digest)

    def _find(self, source: str) -> tuple[Source, str]:
        scheme, colon, reference = source.partition(":")
        port = self._sources.get(scheme)
        if not colon or port is None:
            known = ", ".join(f"{scheme}:" for scheme in sorted(self._sources))
            raise InvalidRequest(
                f"{source[:80]!r} is not a source; a source begins with {known}", param="source"
            )
        return port, reference

    def _pull_alone(self, pull: _Pull, port: Source, reference: str, key: str) -> ModelVersion:
        note = self._folder / f"{key}.json"
        with file_lock(
            self._folder / f"{key}.lock",
            timeout_s=LOCK_TIMEOUT_S,
            on_wait=lambda: pull.progress("waiting for another pull of the same source", 0, 0),
        ) as waited:
            version = self._here(pull, note if waited else None) or self._bring(pull, port, reference)
            note.write_bytes(msgspec.json.encode(version))
            return version

    def _here(self, pull: _Pull, note: Path | None) -> ModelVersion | None:
        """The model that need not be fetched: recorded, or brought by the pull that was just waited for."""
        known = pull.known or (_read_note(note) if note else None)
        if known is None or not pull.identity.is_fixed:
            return None
        pull.progress(f"checking the {known.name} that is here", 0, 0)
        try:
            self._verified(known)
        except (NotFound, ModelFileRefused):
            return None  # gone or damaged: what is fetched now takes its place
        return msgspec.structs.replace(known, name=pull.name, licence=pull.licence or known.licence)

    def _bring(self, pull: _Pull, port: Source, reference: str) -> ModelVersion:
        folder = make_private(pull.folder)
        expect = pull.known.source_digest if pull.known else None
        try:
            fetched = port.fetch(reference, folder, progress=pull.progress, expect=expect)
            version = self._keep(pull, fetched)
        except (InvalidRequest, NotFound, ModelFileRefused):
            _remove(folder)  # nothing of it is worth continuing
            raise
        _remove(folder)
        return version

    def _keep(self, pull: _Pull, fetched: Fetched) -> ModelVersion:
        path = fetched.path
        is_converted = path.suffix == ".safetensors"
        if is_converted:
            pull.progress("converting to GGUF", 0, 0)
            path = pull.folder / "converted.gguf"
            # Named by the source, not by the user: another name would give another digest.
            self._convert(fetched.path.parent, path, pull.identity.name)
        pull.progress("reading the header", 0, 0)
        header = self._inspect(path)
        pull.progress("storing", 0, 0)
        manifest = fetched.manifest
        blob = self._folders.adopt(path, manifest) if manifest else self._blobs.adopt(path)
        # A newer converter may write another file from the same weights, which were checked above.
        if pull.known and not is_converted and blob.digest != pull.known.digest:
            raise another_file(pull.source, found=blob.digest, expected=pull.known.digest)
        return ModelVersion(
            name=pull.name,
            version=pull.identity.version or blob.digest.removeprefix("sha256:")[:12],
            digest=blob.digest,
            format=format_of(file.path for file in manifest.files) if manifest else "gguf",
            bytes=blob.bytes,
            quantization=header.quantization,
            context_tokens=header.context_tokens,
            licence=pull.licence or fetched.licence or header.licence,
            source=pull.source,
            source_digest=fetched.source_digest,
            header=header,
            created_at=self._clock.now(),
            lineage=fetched.lineage,
            card=fetched.card,
        )


def _read_note(path: Path) -> ModelVersion | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelVersion)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
