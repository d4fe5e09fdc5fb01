"""A model on Triton over HTTP: its generate extension, its statistics and its repository."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from urllib.parse import quote

from pilothouse.adapters.engines._asking import TIMEOUTS, client_of, translated
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._triton_watch import Call
from pilothouse.domain.errors import PilothouseError, UpstreamError
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Exchange, HttpFailure
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.sse import EventParser, EventTooLarge
from pilothouse.wire.triton import outbound, said

_ENGINE = "triton"
_LOADING = Timeouts(connect_s=5.0, idle_s=300.0, first_byte_s=300.0)
LOAD_S = 300.0
ASK_S = 5.0
MAX_BYTES = 1024 * 1024


class HttpDoor:
    """
    Implements `_triton_engine.Door`.

    Args:
        address: `unix:<path>`, of a server that we started, or `http(s)://host[:port]`.
        credential: A header line that proves who asks, "" without one.
        pin: Resolves and checks the host of `address` before each connection.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str,
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        self._sweeper = Sweeper()
        _, base, where = parsed_address(address)
        self._client = client_of(where, self._sweeper, pin=pin, cohort=cohort)
        name = quote(model, safe="")
        self._base = "" if address.startswith("unix:") else base
        self._model = f"/v2/models/{name}"
        self._repository = f"/v2/repository/models/{name}"
        line = f"{credential}\r\n" if credential else ""
        self.headers = f"host: {where.host_header}\r\ncontent-type: application/json\r\n{line}"
        self._generate = self._head("POST", f"{self._model}/generate_stream")

    async def say(
        self, fields: outbound.Fields, call: Call, *, deadline_s: float, timeouts: Timeouts | None
    ) -> AsyncGenerator[said.Event, None]:
        data = _whole(self._generate, outbound.written(fields))
        exchange: Exchange | None = None
        try:
            with call:
                exchange = await self._client.request(data, timeouts or TIMEOUTS, total_s=deadline_s)
            call.hang_up = exchange.close
            if exchange.status != 200:
                raise await _refusal(exchange)
            parser = EventParser()
            while True:
                with call:
                    data = await exchange.read()
                if not data:
                    break
                for one in parser.feed(data):
                    event = said.decoded(one)
                    if event.is_last:
                        exchange.finish()
                    yield event
            if parser.is_mid_event:
                raise UpstreamError("Triton ended its stream before the answer was complete")
        except HttpFailure as exc:
            raise translated(exc, _ENGINE) from exc
        except EventTooLarge as exc:
            raise UpstreamError(f"Triton's stream holds an event that is too large: {exc}") from exc
        finally:
            if exchange is not None:
                exchange.release()

    async def ask(self, fields: outbound.Fields) -> said.Event:
        return said.decoded(await self._ask("POST", f"{self._model}/generate", outbound.written(fields)))

    async def counts(self) -> said.Counts:
        return said.read_counts(await self._ask("GET", f"{self._model}/stats"))

    async def load_anew(self) -> None:
        """A load of what is loaded is done at once by Triton, also where its process has ended."""
        for action in ("unload", "load"):
            await self._ask("POST", f"{self._repository}/{action}", deadline_s=LOAD_S)

    async def aclose(self) -> None:
        self._client.close()
        self._sweeper.stop_when_empty()

    async def _ask(self, method: str, path: str, body: bytes = b"", *, deadline_s: float = ASK_S) -> bytes:
        """The body of an answer, a refusal's too."""
        exchange: Exchange | None = None
        timeouts = _LOADING if deadline_s > ASK_S else TIMEOUTS
        try:
            data = _whole(self._head(method, path), body)
            exchange = await self._client.request(data, timeouts, total_s=deadline_s, whole=True)
            return exchange.whole_body()
        except HttpFailure as exc:
            raise translated(exc, _ENGINE) from exc
        finally:
            if exchange is not None:
                exchange.release()

    def _head(self, method: str, path: str) -> bytes:
        return f"{method} {self._base}{path} HTTP/1.1\r\n{self.headers}".encode()


async def _refusal(exchange: Exchange) -> PilothouseError:
    body = await exchange.read_all(MAX_BYTES)
    if exchange.status in (401, 403):
        return UpstreamError(f"Triton refused the secret of this deployment ({exchange.status})")
    try:
        why = said.decoded(body.removeprefix(b"data:").strip()).error
    except UpstreamError:
        why = ""
    return said.refused(why)


def _whole(head: bytes, body: bytes) -> bytes:
    return b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
