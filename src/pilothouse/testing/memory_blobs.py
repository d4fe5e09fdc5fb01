"""Blobs that are remembered, not listed from a disk: nothing is synced and nothing survives."""

from collections.abc import Iterable
from pathlib import Path

from pilothouse.domain.errors import ModelFileRefused, NotFound
from pilothouse.kit.clock import Clock
from pilothouse.kit.digest import NotRegular, digest_of, open_regular
from pilothouse.ports.blobs import YOUNG_S, Blob


class MemoryBlobs:
    """A fake of `ports.blobs.Blobs`: what the test removes or changes is missed or refused as on a disk."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._clock = clock
        self._known: dict[str, tuple[Path, Blob, float]] = {}

    def adopt(self, path: Path) -> Blob:
        try:
            with open_regular(path) as file:
                digest = digest_of(file)
        except NotRegular as exc:
            raise ModelFileRefused(str(exc)) from exc
        kept = path.rename(self._folder / digest)
        blob = Blob(digest, kept.stat().st_size)
        self._known[digest] = (kept, blob, self._clock.now())
        return blob

    def path(self, digest: str) -> Path:
        if digest not in self._known or not self._known[digest][0].is_file():
            raise NotFound(f"no model file {digest}")
        return self._known[digest][0]

    def verify(self, digest: str) -> Path:
        path = self.path(digest)
        with open_regular(path) as file:
            if digest_of(file) != digest:
                raise ModelFileRefused(f"the model file {path} was changed")
        return path

    def all(self) -> list[Blob]:
        return [blob for _digest, (_path, blob, _time) in sorted(self._known.items())]

    def collect(self, keep: Iterable[str]) -> list[Blob]:
        kept = set(keep)
        old = [
            digest
            for digest, (_path, _blob, adopted_at) in self._known.items()
            if digest not in kept and self._clock.now() - adopted_at >= YOUNG_S
        ]
        return [self._known.pop(digest)[1] for digest in old]
