"""A server that speaks TensorFlow Serving's REST API, or KServe's V1, asked one row at a time."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from pilothouse.adapters.engines._asking import MAX_ERROR_BYTES, TIMEOUTS, answered, client_of, translated
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._probing import read_load
from pilothouse.adapters.engines._provider_http import refusal_of
from pilothouse.domain.errors import InvalidRequest, PilothouseError
from pilothouse.domain.status import Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Exchange, HttpFailure
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.wire.tensorflow import rest
from pilothouse.wire.tensorflow.signature import Binding, Signature

_ENGINE = "tensorflow"
_T = TypeVar("_T")


class RestServer:
    """
    Args:
        address: `unix:<path>`, or `http(s)://host[:port]`, before `/v1`.
        model: Its name there, `NAME` or `NAME/versions/N`.
        credential: A header line that proves who asks, "" without one.
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
        root, _, where = parsed_address(address)
        self._sweeper = Sweeper()
        self._client = client_of(where, self._sweeper, pin=pin, cohort=cohort)
        line = f"{credential}\r\n" if credential else ""
        self._head = f"HTTP/1.1\r\nhost: {where.host_header}\r\ncontent-type: application/json\r\n{line}"
        self._model = f"{root}/v1/models/{quote(model)}"

    async def signatures(self, *, deadline_s: float) -> dict[str, Signature] | None:
        """None where the server knows the model and tells no signatures, as KServe's V1."""
        exchange = await self._asked(self._get(f"{self._model}/metadata"), TIMEOUTS, deadline_s)
        try:
            if exchange.status not in (404, 405):
                if exchange.status != 200:
                    raise await _refusal(exchange)
                return rest.read_signatures(exchange.whole_body())
        except HttpFailure as exc:
            raise translated(exc, _ENGINE) from exc
        finally:
            exchange.release()
        await self._told(self._get(self._model), bytes, deadline_s=deadline_s)
        return None

    async def predict(
        self, binding: Binding, row: Mapping[str, Any], *, deadline_s: float, timeouts: Timeouts | None
    ) -> Mapping[str, Any]:
        body = rest.write_predict(binding.signature, row)
        head = f"POST {self._model}:predict {self._head}content-length: {len(body)}\r\n\r\n"
        return await self._told(
            head.encode() + body,
            lambda data: rest.read_predict(data, binding.outputs),
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    async def aclose(self) -> None:
        self._client.close()
        self._sweeper.stop_when_empty()

    def _get(self, target: str) -> bytes:
        return f"GET {target} {self._head}\r\n".encode()

    def _told(
        self, data: bytes, read: Callable[[bytes], _T], *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Coroutine[Any, Any, _T]:
        """What a 200 answer says."""
        wait = timeouts or TIMEOUTS
        return answered(self._client, data, read, _refusal, _ENGINE, timeouts=wait, deadline_s=deadline_s)

    async def _asked(
        self, data: bytes, timeouts: Timeouts, deadline_s: float, *, whole: bool = True
    ) -> Exchange:
        try:
            return await self._client.request(data, timeouts, total_s=deadline_s, whole=whole)
        except HttpFailure as exc:
            raise translated(exc, _ENGINE) from exc


class HostServer(RestServer):
    """Our own host, which counts the answers that are open: between two pieces nothing runs there."""

    async def load(self) -> Load:
        return await self._told(self._get("/load"), read_load, deadline_s=5.0)

    async def open(self, *, deadline_s: float) -> Exchange:
        """An answer is open until this is released."""
        exchange = await self._asked(self._get("/open"), TIMEOUTS, deadline_s, whole=False)
        if exchange.status == 200:
            return exchange
        try:
            raise await _refusal(exchange)
        finally:
            exchange.release()


async def _refusal(exchange: Exchange) -> PilothouseError:
    await exchange.read_all(MAX_ERROR_BYTES)
    if exchange.status == 400:
        return InvalidRequest("the model refused the request as invalid; check its fields")
    return refusal_of(exchange.status, exchange.headers.get(b"retry-after", b""))
