"""
Backup and restore: everything of a home in one file, its keys in another, apart.

The server may run, and the store may be PostgreSQL: its rows are taken along as a
SQLite file, which a restored home starts from. The journal is copied before the database: a record moves
from the one to the other and never back, so that one of the copies has it, and
counting by id makes it one. A restore goes beside an empty home, is checked
there as a whole, keys included, and appears with two renames.
"""

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pilothouse import __version__
from pilothouse.app.copy_store import export_to_sqlite
from pilothouse.config import Settings
from pilothouse.domain.errors import Conflict, NotFound, OperationFailed
from pilothouse.domain.model import ModelVersion
from pilothouse.kit.archive import ArchiveBroken, ArchiveWriter, Manifest, extract, writing
from pilothouse.kit.journal.reader import JournalReader

FORMAT = 1
_STATE = re.compile(r"pilothouse\.db|journal/[A-Za-z0-9_.-]+\.(journal|corrupt)|models/sha256/[0-9a-f]{64}")
_KEYS = re.compile(r"kek-[0-9a-z]+\.(key|retired)|pepper\.key|subject\.key|admin\.key")
_FINGERPRINT = b"pilothouse backup key fingerprint\0"


class _About(Struct, frozen=True, kw_only=True):
    """What both manifests say. `keys`: fingerprints of the keys without which the state cannot be read."""

    format: int
    version: str
    created_at: float
    keys: dict[str, str]
    models: list[str] = []
    """Digests of all registered models, in the archive or not."""


class Backup(Struct, frozen=True, kw_only=True):
    """What was written, or put back. `missing_models` are registered, and not (or no longer) there."""

    file: str
    keys_file: str
    created_at: float
    bytes: int
    models: list[str]
    missing_models: list[str]


def backup(settings: Settings, target: Path, *, now: float, with_models: bool = False) -> Backup:
    """
    Write `target` and `target`.keys. Also of a home that is in use.

    Args:
        now: Unix seconds, for the manifest.
        with_models: Put the model files in as well; without, they are pulled again.

    Raises:
        Conflict: One of the files exists already.
        NotFound: There is no home to back up.
        OperationFailed: A file cannot be read or written.
    """
    keys_target = keys_file_of(target)
    for path in (target, keys_target):
        if path.exists():
            raise Conflict(f"{path} exists already. fix: name another file, or move that one away")
    if settings.is_sqlite and not settings.database_file.exists():
        raise NotFound(f"there is no database in {settings.home}. fix: name the --home of your server")
    try:
        with (
            _scratch(target.absolute().parent) as scratch,
            writing(target) as state_archive,
            writing(keys_target) as keys_archive,
        ):
            _add_journal(state_archive, settings.journal_path)
            copy = _copy_database(settings, scratch)
            state_archive.add("pilothouse.db", copy)
            models = _model_digests(copy)
            missing = _add_models(state_archive, settings.models_path, models) if with_models else models
            # The keys last: whatever was sealed meanwhile with a new one can be opened.
            for path in _key_files(settings.keys_path):
                keys_archive.add(path.name, path)
            about = _About(
                format=FORMAT,
                version=__version__,
                created_at=now,
                keys=_fingerprints(settings.keys_path),
                models=models,
            )
            for archive in (state_archive, keys_archive):
                archive.finish(msgspec.to_builtins(about))
    except (OSError, sqlite3.Error, ArchiveBroken) as exc:
        raise OperationFailed(
            f"the backup to {target} failed: {exc}. fix: see that there is room and that the home is readable"
        ) from exc
    return _result(target, keys_target, about, missing)


def restore(settings: Settings, source: Path, *, keys_file: Path | None = None) -> Backup:
    """
    Put a backup back into a home and a keys folder that are empty or absent.

    Raises:
        Conflict: One of the folders holds something; nothing was touched.
        NotFound: One of the files is not there.
        OperationFailed: An archive is damaged, or the keys are another home's; nothing was put in place.
    """
    keys_source = keys_file or keys_file_of(source)
    home, keys = settings.home_path.resolve(), settings.keys_path.resolve()
    for folder, option in ((home, "--home"), (keys, "--keys")):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Conflict(
                f"{folder} is not empty, and a restore replaces nothing. "
                f"fix: name another {option}, or move it away"
            )
    try:
        with _scratch(home.parent) as new_home, _scratch(keys.parent) as new_keys:
            about = _about(_extract(source, new_home, _STATE), source)
            _about(_extract(keys_source, new_keys, _KEYS), keys_source)
            _check_keys(new_keys, about, keys_source)
            missing = [d for d in about.models if not (new_home / _model_member(d)).exists()]
            # The home last: where one is, its keys are there too.
            new_keys.replace(keys)
            new_home.replace(home)
    except OSError as exc:
        raise OperationFailed(
            f"the restore from {source} failed: {exc}. fix: see that there is room beside {home} and {keys}"
        ) from exc
    return _result(source, keys_source, about, missing)


def keys_file_of(target: Path) -> Path:
    """Where the keys of a backup lie, unless they were moved: to keep them elsewhere is the point."""
    return target.with_name(target.name + ".keys")


def _add_journal(archive: ArchiveWriter, folder: Path) -> None:
    reader = JournalReader(folder, unwrap=_never)
    for name in reader.segments():
        for _ in range(2):  # it may be renamed at this moment, when it is found damaged
            try:
                path = reader.path(name)
                archive.add(f"journal/{path.name}", path, size_bytes=reader.used_bytes(name))
                break
            except FileNotFoundError:  # drained: what it held is in the database, which comes next
                continue


def _never(_wrapped: bytes) -> bytes:
    raise OperationFailed("a backup does not open the journal")


def _copy_database(settings: Settings, scratch: Path) -> Path:
    """
    A consistent copy, in one step: writers go on meanwhile, and do not start it anew.

    A store elsewhere becomes a SQLite file too, so that a backup needs no other program.
    """
    copy, path = scratch / "pilothouse.db", settings.database_file
    if not settings.is_sqlite:
        export_to_sqlite(settings, copy)
        return copy
    with (
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=30.0)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    return copy


def _model_digests(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT document FROM models ORDER BY name, version").fetchall()
    digests = [msgspec.json.decode(row[0], type=ModelVersion).digest for row in rows]
    return list(dict.fromkeys(digests))


def _model_member(digest: str) -> str:
    return f"models/sha256/{digest.removeprefix('sha256:')}"


def _add_models(archive: ArchiveWriter, folder: Path, digests: list[str]) -> list[str]:
    """Returns those that are not there: they can be pulled again."""
    missing = []
    for digest in digests:
        member = _model_member(digest)
        path = folder.parent / member
        if not path.is_file():
            missing.append(digest)
            continue
        archive.add(member, path)
    return missing


def _key_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and _KEYS.fullmatch(path.name))


def _fingerprints(folder: Path) -> dict[str, str]:
    """
    By key, not by file: a key that was retired since is the same key.

    The admin key is left out, for a home can be read without it.
    """
    return {
        path.stem: sha256(_FINGERPRINT + path.read_bytes().strip()).hexdigest()
        for path in _key_files(folder)
        if path.stem != "admin"
    }


def _extract(path: Path, into: Path, expected: re.Pattern[str]) -> Manifest:
    try:
        return extract(path, into, expected=expected)
    except FileNotFoundError as exc:
        raise NotFound(
            f"there is no file {path}. fix: name the backup, and its keys with --keys-file"
        ) from exc
    except ArchiveBroken as exc:
        raise OperationFailed(f"{path} is damaged: {exc}. fix: use another backup") from exc


def _about(manifest: Manifest, path: Path) -> _About:
    found: Any = manifest.about.get("format")
    if found != FORMAT:
        raise OperationFailed(
            f"{path} has format {found!r} and this version reads {FORMAT}. "
            "fix: restore it with the version that made it"
        )
    try:
        return msgspec.convert(manifest.about, _About)
    except msgspec.ValidationError as exc:
        raise OperationFailed(f"{path} is damaged: {exc}. fix: use another backup") from exc


def _check_keys(folder: Path, about: _About, path: Path) -> None:
    found = _fingerprints(folder)
    lacking = [name for name, fingerprint in about.keys.items() if found.get(name) != fingerprint]
    if lacking:
        raise OperationFailed(
            f"{path} holds the keys of another home, or older ones: it lacks {', '.join(sorted(lacking))}. "
            "fix: name the keys file that was written with this backup"
        )


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A private folder beside what it shall become; gone at the end, unless it was renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".pilothouse-", dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _result(file: Path, keys_file: Path, about: _About, missing: list[str]) -> Backup:
    return Backup(
        file=str(file),
        keys_file=str(keys_file),
        created_at=about.created_at,
        bytes=file.stat().st_size + keys_file.stat().st_size,
        models=about.models,
        missing_models=missing,
    )
