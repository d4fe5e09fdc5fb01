"""
One gRPC connection to an engine: bytes in, bytes out, our own errors.

Belongs here: where it may connect to, deadlines, cancelling, and what a status
means. Does not: any message. It stands on the extra `grpc`, so drivers get it through
`_extras.over_grpc`.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from grpc.aio import EOF, AioRpcError

from pilothouse.domain.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.kit.http1.peer import Address

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
IDLE_S = 60.0
"""Until the next message of a stream."""
_GRACE_S = 60.0
"""For calls on a connection that another one took the place of."""


class Channel:
    """
    A connection that is made with the first call, and made anew where it broke.

    Args:
        engine: Its name, for errors.
        where: A host and port, or the path of a socket.
        credential: A header line that goes with each call; "" is none.
        pin: Resolves and checks the host before each connection.
        known: The error that the server's own words stand for, None where they say nothing
            that its status does not. They reach nobody: they may hold a prompt.
    """

    def __init__(
        self,
        engine: str,
        where: Address,
        *,
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        known: Callable[[str], PilothouseError | None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._where = where
        self._pin = pin
        name, _, value = credential.partition(": ")
        self._metadata = ((name.lower(), value),) if credential else ()
        self._known = known
        self._channel: Any = None
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def unary(self, method: str, message: bytes, *, deadline_s: float) -> bytes:
        """
        Ask once, such as `/inference.GRPCInferenceService/ModelInfer`.

        Raises:
            PilothouseError: As `ports.engine.Engine` says.
        """
        channel = await self._open(deadline_s)
        call = channel.unary_unary(method)(message, timeout=deadline_s, metadata=self._metadata)
        try:
            return bytes(await call)
        except AioRpcError as exc:
            raise self._translated(channel, exc) from exc

    async def stream(
        self, method: str, message: bytes, *, deadline_s: float, idle_s: float = IDLE_S
    ) -> AsyncGenerator[bytes, None]:
        """One message out, all that come back. Closing the generator cancels the call."""
        channel = await self._open(deadline_s)
        # To a method that takes a stream as well: on the wire it is one of a single message, and gRPC's
        # own separate writes lose the status of a call that the server refuses before they are done.
        call = channel.unary_stream(method)(message, timeout=deadline_s, metadata=self._metadata)
        has_begun = False
        try:
            while True:
                async with asyncio.timeout(idle_s):
                    said = await call.read()
                if said is EOF:
                    break
                has_begun = True
                yield bytes(said)
            await call.code()
        except AioRpcError as exc:
            raise self._translated(channel, exc, has_begun=has_begun) from exc
        except TimeoutError as exc:
            raise DeadlineExceeded(f"the {self._engine} engine said nothing for {idle_s:.0f} s") from exc
        finally:
            call.cancel()

    async def aclose(self) -> None:
        channel, self._channel = self._channel, None
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if channel is not None:
            await channel.close()

    async def _open(self, deadline_s: float) -> Any:
        if self._channel is not None:
            return self._channel
        try:
            # Around the lock as well: who waits for another's look-up has a deadline of its own.
            async with asyncio.timeout(deadline_s), self._opening:
                if self._channel is None:
                    ip = await self._pin() if self._pin is not None else self._where.host
                    self._channel = self._connected(ip)
                return self._channel
        except TimeoutError as exc:
            raise DeadlineExceeded(f"the {self._engine} engine's host was not found in time") from exc
        except (OSError, ValueError) as exc:
            raise EngineUnavailable(
                f"the {self._engine} engine cannot be reached: {exc}", retry_after_s=1.0
            ) from exc

    def _connected(self, ip: str) -> Any:
        where = self._where
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),  # the gateway retries, and counts what it does
            # Two connections to one address are two, each with its own token and deployment.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if where.path:
            return aio.insecure_channel(f"unix:{where.path}", options)
        target = f"ipv6:[{ip}]:{where.port}" if ":" in ip else f"ipv4:{ip}:{where.port}"
        options.append(("grpc.default_authority", where.host_header))
        if not where.tls:
            return aio.insecure_channel(target, options)
        options.append(("grpc.ssl_target_name_override", where.server_name or where.host))
        known = ssl.get_default_verify_paths().cafile
        roots = Path(known).read_bytes() if known else None
        return aio.secure_channel(target, grpc.ssl_channel_credentials(roots), options)

    def _translated(self, channel: Any, exc: Any, *, has_begun: bool = False) -> PilothouseError:
        error = self._of_code(exc.code(), exc.details())
        if isinstance(error, EngineUnavailable):
            self._give_up(channel)
            if has_begun:
                error = UpstreamError(f"the {self._engine} engine's answer was cut")
        error.has_begun = has_begun
        return error

    def _give_up(self, channel: Any) -> None:
        """The next call resolves the host again; calls that run end by themselves."""
        if self._channel is channel:
            self._channel = None
            task = asyncio.ensure_future(channel.close(_GRACE_S))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _of_code(self, code: Any, details: str | None) -> PilothouseError:
        return self._known(details or "") or self._by_status(code, details)

    def _by_status(self, code: Any, details: str | None) -> PilothouseError:
        name, engine = code.name, self._engine
        if name == "UNAVAILABLE":
            return EngineUnavailable(f"the {engine} engine cannot be reached", retry_after_s=1.0)
        if name == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(f"the {engine} engine did not answer in time")
        if name == "RESOURCE_EXHAUSTED":
            if "larger than max" in (details or ""):
                return UpstreamError(f"the {engine} engine's answer is over {MAX_MESSAGE_BYTES} bytes")
            return Overloaded("the engine takes no more requests now; try again", retry_after_s=1.0)
        if name in ("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION"):
            return InvalidRequest("the engine refused the request as invalid; check its fields")
        if name == "NOT_FOUND":
            return UpstreamError("the engine knows no such model, or this deployment's secret may not use it")
        if name == "UNIMPLEMENTED":
            return NotSupported(f"the {engine} engine does not do that over gRPC")
        if name in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return UpstreamError("the engine refused the secret of this deployment")
        return UpstreamError(f"the {engine} engine answered {name}")
