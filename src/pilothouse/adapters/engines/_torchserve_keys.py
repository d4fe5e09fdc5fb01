"""
The keys of a TorchServe that we started: read from its file, and renewed when it refuses one.

TorchServe makes three when it starts: one to ask the model, one to manage, both for
an hour, and one that makes new ones of those two, for as long as it runs. It renews
none by itself, and the file holds what is true now.
"""

import asyncio
from pathlib import Path

import msgspec

from pilothouse.domain.errors import EngineUnavailable, UpstreamError
from pilothouse.kit.http1.client import Client, request_bytes
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.secret import Secret

RENEW_S = 10.0
MAX_BYTES = 64 * 1024


class _Key(msgspec.Struct):
    key: str


class _File(msgspec.Struct):
    inference: _Key
    api: _Key = msgspec.field(name="API")


class Keys:
    """
    Args:
        path: Of its key file.
        management: Where new ones are asked for.
    """

    def __init__(self, path: str, management: Client) -> None:
        self._path = Path(path)
        self._management = management
        self._current: Secret | None = None
        self._renewing = asyncio.Lock()

    async def current(self) -> Secret:
        """
        Raises:
            EngineUnavailable: TorchServe has not written any yet.
        """
        if self._current is None:
            self._current, _ = await self._read()
        return self._current

    async def renew(self, refused: Secret) -> None:
        """
        Have another key than the one that was refused, somebody else's new one where there is one.

        Raises:
            EngineUnavailable: The file is gone, and with it TorchServe.
            UpstreamError: TorchServe makes none.
            HttpFailure: It cannot be asked.
        """
        async with self._renewing:
            if self._current != refused:
                return
            found, api = await self._read()
            if found == refused:
                await self._ask(api)
                found, _ = await self._read()
            self._current = found

    async def _ask(self, api: Secret) -> None:
        head = f"authorization: Bearer {api.reveal()}\r\n".encode()
        data = request_bytes("GET", "/token?type=inference", "localhost", head)
        exchange = await self._management.request(data, Timeouts(), total_s=RENEW_S)
        try:
            await exchange.read_all(MAX_BYTES)
        finally:
            exchange.release()
        if exchange.status != 200:
            raise UpstreamError(f"TorchServe gives no new key ({exchange.status}); restart this deployment")

    async def _read(self) -> tuple[Secret, Secret]:
        """(to ask the model, to make new keys)."""
        try:
            data = await asyncio.to_thread(self._path.read_bytes)
            found = msgspec.json.decode(data, type=_File)
        except (OSError, msgspec.DecodeError) as exc:  # not there, or half written
            raise EngineUnavailable("TorchServe has not made its keys yet", retry_after_s=1.0) from exc
        return Secret(found.inference.key), Secret(found.api.key)
