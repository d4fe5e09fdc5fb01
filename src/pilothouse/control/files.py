"""
Files of teams: kept sealed on disk, each under a key of its own, and let go when they expire.

What a file is, a row of the store says; bytes without a row are left over from
somebody who was killed, and are removed at the next start.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from pilothouse.control.seals import Seals
from pilothouse.control.transact import Transact
from pilothouse.domain.batch import StoredFile
from pilothouse.domain.errors import (
    InvalidRequest,
    NotFound,
    OperationFailed,
    RequestTooLarge,
    StoreUnavailable,
)
from pilothouse.domain.principal import Principal
from pilothouse.kit.clock import Clock
from pilothouse.kit.folders import make_private
from pilothouse.kit.ids import new_id
from pilothouse.kit.seal import SealBroken, new_key
from pilothouse.kit.sealed_log import PIECE_BYTES, SealedLog
from pilothouse.ports.store import UnitOfWork

DAY_S = 86400.0
USUAL_S = LONGEST_S = 30 * DAY_S
SHORTEST_S = 3600.0
_SWEEP_FILES = 100


class Room(Struct, frozen=True, kw_only=True):
    """What a team may keep."""

    file_bytes: int
    team_bytes: int
    team_files: int


class Incoming(Protocol):
    """A file on its way in. Its other properties are known once its pieces have ended."""

    def pieces(self) -> AsyncIterator[bytes]: ...
    @property
    def filename(self) -> str: ...
    @property
    def expires_s(self) -> float | None:
        """From now; None is a month."""
        ...


class Files:
    """
    Args:
        folder: Made when the first file comes.
    """

    def __init__(self, folder: Path, transact: Transact, seals: Seals, *, clock: Clock, room: Room) -> None:
        self._folder = folder
        self._transact = transact
        self._seals = seals
        self._clock = clock
        self._room = room

    async def add(self, whose: Principal, incoming: Incoming) -> StoredFile:
        """
        Keep what comes, as it comes.

        Raises:
            InvalidRequest: It shall live for longer or shorter than files do.
            RequestTooLarge: It, or all of the team's together, would be too large.
            StoreUnavailable: It cannot be written.
        """
        count, used = await self._transact(lambda unit: unit.files.used(whose.team))
        room = self._room
        if count >= room.team_files:
            raise RequestTooLarge(f"team {whose.team} keeps {count} files already; delete some")
        now = self._clock.now()
        key = new_key()
        sealing_key, sealed_key = await self._transact(
            lambda unit: self._seals.seal_file_key(unit, whose.team, key, now=now)
        )
        file_id = new_id("file-")
        make_private(self._folder)
        log = SealedLog(self.path(file_id), file_id, key)
        try:
            await self._take_in(log, incoming.pieces(), most=min(room.file_bytes, room.team_bytes - used))
            file = StoredFile(
                id=file_id,
                team=whose.team,
                key_id=whose.key_id,
                filename=incoming.filename,
                purpose="batch",
                size_bytes=log.plain_bytes,
                created_at=now,
                expires_at=now + lifetime(incoming.expires_s),
                sealing_key=sealing_key,
                sealed_key=sealed_key,
            )
            await self._transact(lambda unit: unit.files.add(file))
        except BaseException:
            log.path.unlink(missing_ok=True)
            raise
        return file

    async def _take_in(self, log: SealedLog, pieces: AsyncIterator[bytes], *, most: int) -> None:
        gathered = bytearray()
        try:
            log.open()
            async for piece in pieces:
                gathered += piece
                if log.plain_bytes + len(gathered) > most:
                    raise RequestTooLarge(
                        f"the file is over the {max(0, most)} bytes that are left for it; "
                        "delete other files, or send it in parts"
                    )
                if len(gathered) >= PIECE_BYTES:
                    log.append(bytes(gathered))
                    gathered.clear()
            if gathered:
                log.append(bytes(gathered))
            await asyncio.to_thread(log.sync)
        except OSError as exc:
            raise StoreUnavailable(
                f"the file cannot be kept: {exc.strerror or exc}; try again later"
            ) from exc
        finally:
            log.close()

    async def get(self, whose: Principal, file_id: str) -> StoredFile:
        """NotFound, also of another team, of another key where this one is limited, and of what expired."""
        file = await self._transact(lambda unit: unit.files.get(file_id, team=whose.team))
        if file.expires_at <= self._clock.now() or (key_filter(whose) not in (None, file.key_id)):
            raise NotFound(f"no file {file_id[:64]!r}", param="file_id")
        return file

    async def page(self, whose: Principal, *, after: str | None, limit: int) -> list[StoredFile]:
        """Newest first."""
        key_id, now = key_filter(whose), self._clock.now()
        found = await self._transact(
            lambda unit: unit.files.page(team=whose.team, key_id=key_id, after=after, limit=limit)
        )
        return [file for file in found if file.expires_at > now]

    async def remove(self, file: StoredFile) -> None:
        """The row first: without it, the bytes open for nobody."""
        await self._transact(lambda unit: unit.files.remove(file.id))
        self.path(file.id).unlink(missing_ok=True)

    async def log_of(self, file: StoredFile) -> SealedLog:
        return await self.open_log(file.id, file.team, file.sealing_key, file.sealed_key)

    async def open_log(self, name: str, team: str, sealing_key: str, sealed_key: bytes) -> SealedLog:
        key = await self._transact(
            lambda unit: self._seals.open_file_key(unit, team, sealing_key, sealed_key)
        )
        return SealedLog(self.path(name), name, key)

    def new_key(self, unit: UnitOfWork, team: str) -> tuple[str, bytes]:
        """For files that come later: the id of the key that it is sealed with, and the sealed key."""
        return self._seals.seal_file_key(unit, team, new_key(), now=self._clock.now())

    def path(self, name: str) -> Path:
        return self._folder / name

    async def sweep(self, keep: Collection[str]) -> None:
        """Let go of some of what expired, but for the named ones."""
        now = self._clock.now()
        for file in await self._transact(lambda unit: unit.files.expired(now, limit=_SWEEP_FILES)):
            if file.id not in keep:
                await self.remove(file)

    async def clear(self, keep: Iterable[str]) -> None:
        """Remove bytes without a row, but for the named ones. At the start, when nobody writes."""
        if not self._folder.is_dir():
            return
        known = {*await self._transact(lambda unit: unit.files.ids()), *keep}
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)


def opened(log: SealedLog) -> Iterator[bytes]:
    """
    A file's bytes.

    Raises:
        OperationFailed: They are not what was kept.
    """
    try:
        yield from log.pieces()
    except (SealBroken, OSError) as exc:
        raise OperationFailed(f"the file {log.path.name} cannot be read: {exc}") from exc


def key_filter(whose: Principal) -> str | None:
    """
    Whose files and batches a key sees: all of its team (None), or its own alone.

    Those of others hold what endpoints said that a limited key may not ask; and
    operators read nobody's prompts.
    """
    is_limited = whose.endpoints is not None or whose.role == "operator"
    return whose.key_id if is_limited else None


def lifetime(seconds: float | None) -> float:
    """
    Raises:
        InvalidRequest: It is not between an hour and a month.
    """
    if seconds is None:
        return USUAL_S
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise InvalidRequest(
            f"expires_after.seconds is {SHORTEST_S:.0f} to {LONGEST_S:.0f}", param="expires_after.seconds"
        )
    return seconds
