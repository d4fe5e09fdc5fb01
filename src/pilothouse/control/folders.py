"""
Model folders as they lie on the disk: `<root>/<64 hex digits>/`, files of mode 0400.

A folder's digest is that of its manifest, which is kept as a blob like any model
file: so a folder lives as long as its manifest does, and is believed by its digest
alone. It gets its name by one rename, when all of it is there.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pilothouse.domain.errors import ModelFileRefused, NotFound
from pilothouse.domain.model_folder import Manifest
from pilothouse.kit.digest import digest_of, open_regular
from pilothouse.kit.folders import make_private
from pilothouse.kit.ids import new_id
from pilothouse.ports.blobs import Blob, Blobs


class Folders:
    def __init__(self, root: Path, blobs: Blobs) -> None:
        self._root = make_private(root)
        self._blobs = blobs

    def adopt(self, folder: Path, manifest: Manifest) -> Blob:
        """
        Move a folder in.

        Returns:
            Its digest, and the size of its files.
        """
        note = folder.with_name("manifest.json")
        note.write_bytes(manifest.encoded())
        blob = self._blobs.adopt(note)
        for path in _paths(folder):
            (folder / path).chmod(0o400)
        named = self._path(blob.digest)
        staged = named.with_suffix(f".{new_id()}")
        shutil.move(folder, staged)
        if named.exists():  # whatever lies there may have been changed: what came in was just read
            named.rename(gone := named.with_suffix(f".{new_id()}"))
            shutil.rmtree(gone, ignore_errors=True)
        staged.rename(named)
        return Blob(blob.digest, manifest.bytes)

    def verify(self, digest: str) -> Path:
        """
        Read all of it again.

        Raises:
            NotFound: It is gone.
            ModelFileRefused: A file was changed, added or taken away.
        """
        manifest = msgspec.json.decode(self._blobs.verify(digest).read_bytes(), type=Manifest)
        folder = self._path(digest)
        if not folder.is_dir():
            raise NotFound(f"the model folder {digest} is not on this machine; pull the model again")
        wanted = {file.path: file.digest for file in manifest.files}
        found = {path: _digest(folder / path) for path in _paths(folder)}
        if wrong := sorted(
            path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path)
        ):
            raise ModelFileRefused(
                f"the model folder {folder} was changed on the disk, at {', '.join(wrong[:5])}. "
                "Delete it, find out who can write there, and pull the model again"
            )
        return folder

    def collect(self) -> None:
        """Delete folders whose manifest is gone, with what a crash left beside them."""
        kept = {blob.digest.removeprefix("sha256:") for blob in self._blobs.all()}
        for folder in self._root.iterdir():
            if folder.stem not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, digest: str) -> Path:
        return self._root / digest.removeprefix("sha256:")


def _paths(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        for name in [*names, *(one for one in folders if (Path(parent) / one).is_symlink())]:
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _digest(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return digest_of(file)
    except OSError:
        return ""
