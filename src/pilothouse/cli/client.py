"""
The client of the admin API: ask, and turn the server's errors into ours.

What the answers mean is for the commands; which server is meant, `find` says.
The standard library's HTTP client does, for nothing here is on the request path.
"""

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlencode, urlsplit

import msgspec

from pilothouse import __version__
from pilothouse.domain import errors
from pilothouse.domain.errors import (
    InvalidApiKey,
    InvalidRequest,
    NotFound,
    OperationFailed,
    PermissionDenied,
    PilothouseError,
    ServerUnreachable,
)

Query = Mapping[str, str | int | float | bool | None]
Json = dict[str, Any]
"""An object of the API as it came, so that fields we do not know are printed all the same."""
T = TypeVar("T")
TIMEOUT_S = 30.0
STREAM_TIMEOUT_S = 600.0
"""Between two pieces of a stream: a pull or a long answer may be silent for a while."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_PAGE = 1000
CONTROLLER_PATIENCE_S = 15.0
HARMLESS = "/admin/v1/engines"

_BY_CODE = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PilothouseError)
}
_BY_STATUS: dict[int, type[PilothouseError]] = {
    400: InvalidRequest,
    401: InvalidApiKey,
    403: PermissionDenied,
    404: NotFound,
    409: errors.Conflict,
    412: errors.Conflict,
    422: InvalidRequest,
}


class Server:
    """A server, by its address and a key. One connection a request."""

    def __init__(self, url: str, api_key: str, *, certificate: str = "", key_file: str = "") -> None:
        """`key_file` is where the key was read, if it was: it is named when the server refuses it."""
        self.url = url.rstrip("/")
        self.api_key = api_key
        self._key_file = key_file
        self._parts = _parse_url(self.url)
        self._certificate = certificate
        self._has_controller = False

    def get(self, path: str, query: Query | None = None) -> object:
        return self.call("GET", path, query=query)

    def fetch(self, path: str, shape: type[T], query: Query | None = None) -> T:
        """Like `get`, as a value of that shape; fields that we do not know are passed over."""
        try:
            return msgspec.convert(self.get(path, query), shape, strict=False)
        except msgspec.ValidationError as exc:
            raise OperationFailed(
                f"{self.url} answers in a shape that this version does not know ({exc}). "
                "fix: use the command line of the server's version"
            ) from exc

    def probe(self, path: str, *, timeout_s: float) -> tuple[int, object]:
        """Status and body of a GET, whatever the status is; (0, None) when nobody answers."""
        try:
            with self.open("GET", path, timeout_s=timeout_s, accepts_errors=True) as response:
                return response.status, json.loads(response.read(1024 * 1024))
        except (ServerUnreachable, OSError, HTTPException, ValueError):
            return 0, None

    def get_object(self, path: str, query: Query | None = None) -> Json:
        return as_object(self.get(path, query))

    def post(self, path: str, body: object = None) -> Json:
        return as_object(self.call("POST", path, body=body))

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> object:
        """
        Ask, and return the decoded answer; None when it is empty.

        Raises:
            ServerUnreachable: Nobody answers there.
            PilothouseError: The server's own error, by its code.
        """
        with self.open(
            method, path, query=query, body=body, headers=headers, timeout_s=timeout_s
        ) as response:
            try:
                data = response.read(MAX_ANSWER_BYTES + 1)
            except (OSError, HTTPException) as exc:
                raise _unreachable(self.url, exc) from exc
        if len(data) > MAX_ANSWER_BYTES:
            raise OperationFailed(f"the answer is over {MAX_ANSWER_BYTES} bytes. fix: ask for less")
        return _decode(data) if data.strip() else None

    def lines(self, method: str, path: str, *, body: object = None) -> Iterator[bytes]:
        """
        The lines of a streamed answer, as they come, without their ends.

        Closing the iterator closes the connection. Errors are those of `call`.
        """
        with self.open(method, path, body=body) as response:
            try:
                while line := response.readline(MAX_LINE_BYTES + 1):
                    if len(line) > MAX_LINE_BYTES:
                        raise OperationFailed(f"the answer has a line over {MAX_LINE_BYTES} bytes")
                    yield line.rstrip(b"\r\n")
            except (OSError, HTTPException) as exc:
                raise _unreachable(self.url, exc) from exc

    def pages(self, path: str, query: Query | None = None, *, limit: int) -> Iterator[Json]:
        """The items of a list, over its pages, at most `limit`."""
        asked: dict[str, str | int | float | bool | None] = dict(query or {})
        left = limit
        while left > 0:
            page = as_object(self.get(path, {**asked, "limit": min(left, MAX_PAGE)}))
            for item in as_items(page)[:left]:
                left -= 1
                yield item
            asked["cursor"] = cursor = str(page.get("next") or "")
            if not cursor:
                return

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = STREAM_TIMEOUT_S,
        accepts_errors: bool = False,
    ) -> Iterator[HTTPResponse]:
        """The answer's head, its body still to be read; leaving the block closes the connection."""
        if path.startswith("/admin/") and not accepts_errors:
            self._await_controller()
        sent = {"user-agent": f"pilothouse/{__version__}", "accept": "application/json", **(headers or {})}
        if self.api_key:
            sent["authorization"] = f"Bearer {self.api_key}"
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            sent["content-type"] = "application/json"
        target = self._parts.path + path + _query_string(query)
        connection = self._connection(timeout_s)
        try:
            try:
                connection.request(method, target, body=data, headers=sent)
                response = connection.getresponse()
            except (OSError, HTTPException) as exc:
                raise _unreachable(self.url, exc) from exc
            if response.status >= 400 and not accepts_errors:
                raise self._error(response)
            yield response
        finally:
            connection.close()

    def _error(self, response: HTTPResponse) -> PilothouseError:
        error = _server_error(response)
        if not isinstance(error, InvalidApiKey) or not self._key_file:
            return error
        return InvalidApiKey(
            f"{self.url} does not take the key in {self._key_file}: it was revoked, or is another server's. "
            "fix: pilothouse restart, which writes a new one there"
        )

    def _await_controller(self) -> None:
        """
        Once, before the first request that is its to answer: models are served a moment before it is there.

        Asked for by a request that changes nothing, for to send a change twice is no way to wait.
        """
        if self._has_controller:
            return
        self._has_controller = True
        give_up_at = time.monotonic() + CONTROLLER_PATIENCE_S
        while self.probe(HARMLESS, timeout_s=5.0)[0] == 503 and time.monotonic() < give_up_at:
            time.sleep(0.1)

    @property
    def is_tls(self) -> bool:
        return self._parts.scheme == "https"

    @property
    def host(self) -> str:
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        return self._parts.port or (443 if self.is_tls else 80)

    @property
    def path_prefix(self) -> str:
        """What stands before `/v1` behind a reverse proxy; usually nothing."""
        return self._parts.path

    def tls_context(self) -> ssl.SSLContext | None:
        if not self.is_tls:
            return None
        context = ssl.create_default_context(cafile=self._certificate or None)
        if self._certificate:
            # The local server's own certificate is the anchor: whoever holds its key is that server,
            # whatever name stands in it.
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _connection(self, timeout_s: float) -> HTTPConnection:
        context = self.tls_context()
        if context is None:
            return HTTPConnection(self.host, self.port, timeout=timeout_s)
        return HTTPSConnection(self.host, self.port, timeout=timeout_s, context=context)


def as_object(value: object) -> Json:
    """
    Raises:
        OperationFailed: The answer is not a JSON object: that is no Pilothouse server.
    """
    if not isinstance(value, dict):
        raise OperationFailed("the answer is not what Pilothouse sends. fix: check --url")
    return value


def as_items(page: Json) -> list[Json]:
    items = page.get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _parse_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known:
        raise InvalidRequest(f"{url!r} is not an address. fix: such as http://127.0.0.1:8420", param="url")
    return parts


def _query_string(query: Query | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None and value != ""}
    return "?" + urlencode(given) if given else ""


def _decode(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError as exc:
        raise OperationFailed(
            "the answer is not JSON: no Pilothouse server answers. fix: check --url"
        ) from exc


def _server_error(response: HTTPResponse) -> PilothouseError:
    try:
        body = json.loads(response.read(1024 * 1024))
    except (ValueError, OSError, HTTPException):
        body = None
    return error_of(body, response.status)


def error_of(body: object, status: int) -> PilothouseError:
    """The error that an OpenAI-shaped body tells of; by the status alone where there is none."""
    found = body.get("error") if isinstance(body, dict) else None
    found = found if isinstance(found, dict) else {}
    message = str(found.get("message") or f"the server answered with status {status}")
    kind = _BY_CODE.get(str(found.get("code"))) or _BY_STATUS.get(status) or OperationFailed
    faults = found.get("faults")
    if issubclass(kind, InvalidRequest) and isinstance(faults, list):
        return kind(message, faults=[str(fault) for fault in faults])
    return kind(message)


def _unreachable(url: str, cause: BaseException) -> ServerUnreachable:
    if isinstance(cause, TimeoutError):
        return ServerUnreachable(f"{url} does not answer in time. fix: pilothouse status, pilothouse doctor")
    if isinstance(cause, http.client.RemoteDisconnected | ConnectionResetError):
        return ServerUnreachable(f"{url} closed the connection. fix: try again; see pilothouse logs")
    return ServerUnreachable(f"nobody answers at {url} ({cause}). fix: pilothouse up, or another --url")
