"""
Keys as files: a folder of its own, apart from what the keys protect.

    kek-<id>.key       wraps sealing keys; the newest one is used for new wraps
    kek-<id>.retired   only unwraps, until somebody removes the file
    pepper.key         for the MACs of API keys
    subject.key        for the keyed hashes of people's names

All are made at the first start, 64 hex digits each in a 0600 file. A file that
others can read is refused, for it may have been read. The folder is looked at
again for each new wrap, so that a rotation by one process reaches the others.
"""

import os
import secrets
import stat
from pathlib import Path

from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.ids import new_id
from pilothouse.kit.seal import KEY_BYTES, SealBroken, Sealer, bind, key_id_of

_KEK, _ACTIVE, _RETIRED = "kek-", ".key", ".retired"


class FileKeys:
    """
    `ports.keys.Keys`, and the two secrets that are used and not wrapped with. Safe in threads.

    Raises:
        OperationFailed: The folder or a file is open to others, or damaged; the message says the fix.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sealers: dict[str, Sealer] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_open(folder, "700")
            if not self._ids(_ACTIVE) and not self._ids(_RETIRED):
                self._make_all()
        except OSError as exc:
            raise OperationFailed(
                f"cannot use the keys folder {folder}: {exc.strerror}. fix: make it writable for this user"
            ) from exc
        self._pepper = _read_key(folder / "pepper.key")
        self._subject_key = _read_key(folder / "subject.key")

    def pepper(self) -> bytes:
        """Secret of the MACs of API keys. Changing it ends every key."""
        return self._pepper

    def subject_key(self) -> bytes:
        """Secret of the hashes of subjects. Changing it makes all people strangers."""
        return self._subject_key

    def current_id(self) -> str:
        ids = self._ids(_ACTIVE)
        if not ids:
            raise OperationFailed(
                f"no wrapping key in {self._folder}. fix: restore the keys folder from its backup"
            )
        return ids[-1]

    def wrap(self, key: bytes, *, context: bytes) -> bytes:
        return self._sealer(self.current_id()).seal(key, bind("wrap") + context)

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        try:
            return self._sealer(key_id_of(wrapped)).open(wrapped, bind("wrap") + context)
        except SealBroken as exc:
            raise OperationFailed(
                f"a wrapped key does not open with the keys in {self._folder}: {exc}. "
                "fix: use the keys folder that belongs to this home, or restore both from one backup"
            ) from exc

    def retire(self, key_id: str) -> None:
        path = self._path(key_id, _ACTIVE)
        if not path.exists():
            if self._path(key_id, _RETIRED).exists():
                return
            raise OperationFailed(
                f"no wrapping key {key_id!r} in {self._folder}. fix: it has {self._ids(_ACTIVE)}"
            )
        if key_id == self.current_id():
            self._make_kek()
        path.rename(self._path(key_id, _RETIRED))
        _sync_folder(self._folder)

    def _ids(self, suffix: str) -> list[str]:
        """Ids sort by the time of their making."""
        return sorted(p.stem.removeprefix(_KEK) for p in self._folder.glob(f"{_KEK}*{suffix}"))

    def _path(self, key_id: str, suffix: str) -> Path:
        return self._folder / f"{_KEK}{key_id}{suffix}"

    def _make_all(self) -> None:
        """
        The first start. The wrapping key comes last: where one is, all were made.

        So a pepper that is lost later is an error, and not replaced by one that
        would silently end every API key.
        """
        for name in ("pepper.key", "subject.key"):
            if not (self._folder / name).exists():
                _write_key(self._folder / name)
        self._make_kek()

    def _make_kek(self) -> None:
        _write_key(self._path(new_id(), _ACTIVE))

    def _sealer(self, key_id: str) -> Sealer:
        sealer = self._sealers.get(key_id)
        if sealer is None:
            # The id may come from an envelope that anybody wrote: it names a file only if one is there.
            suffix = next((s for s in (_ACTIVE, _RETIRED) if key_id in self._ids(s)), None)
            if suffix is None:
                raise OperationFailed(
                    f"the wrapping key {key_id[:40]!r} is not in {self._folder}. "
                    "fix: use the keys folder that belongs to this home, or restore both from one backup"
                )
            sealer = self._sealers[key_id] = Sealer(key_id, _read_key(self._path(key_id, suffix)))
        return sealer


def _refuse_open(path: Path, mode: str) -> None:
    found = stat.S_IMODE(path.stat().st_mode)
    if found & 0o077:
        raise OperationFailed(
            f"{path} is open to other users (mode {found:o}). fix: chmod {mode} {path}; "
            "and if others use this machine, take it as known and rotate it"
        )


def _read_key(path: Path) -> bytes:
    try:
        _refuse_open(path, "600")
        key = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as exc:
        raise OperationFailed(
            f"cannot read the key {path}: {exc.strerror}. fix: make it yours, or restore it from the backup"
        ) from exc
    except ValueError as exc:
        raise OperationFailed(f"{path} holds no key. fix: restore it from the backup of the keys") from exc
    if len(key) != KEY_BYTES:
        raise OperationFailed(
            f"{path} holds {len(key)} bytes where a key has {KEY_BYTES}. fix: restore it from the backup"
        )
    return key


def _write_key(path: Path) -> None:
    """Make a key file, whole or not at all; when another process was faster, its key stands."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            # A key that power loss takes away takes everything with it that was sealed since.
            os.fsync(file.fileno())
        try:
            path.hardlink_to(unfinished)
        except FileExistsError:
            pass
        _sync_folder(path.parent)
    finally:
        unfinished.unlink()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
