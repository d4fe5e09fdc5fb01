"""
Tokens of a Google service account: signed for, fetched, kept, and renewed before they end.

The account's key signs a statement of who asks; only that statement is sent, to the
account's token endpoint, and what comes back is a token for the hour. One fetch runs
at a time, beside the requests: they wait only where there is no valid token at all.

Source: RFC 7523 (JWT grants), RFC 7515 (RS256), and the service account flow of Google.
"""

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Meta, Struct

from pilothouse.adapters.engines._asking import client_of
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.domain.errors import DeadlineExceeded, OperationFailed, UpstreamError
from pilothouse.kit.http1.client import HttpFailure, request_bytes
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.secret import Secret

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
RENEW_BEFORE_S = 300.0
"""Before its end, for a request may take as long, and the clocks of two machines differ."""
FETCH_S = 10.0
"""The most that one fetch may take, and so the most that a request waits for it."""
PAUSE_S = 5.0
"""Between two fetches, whatever became of the first."""
_STATEMENT_S = 3600
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_FORM = b"content-type: application/x-www-form-urlencoded\r\n"
_LEAST_BITS = 2048
_MAX_BYTES = 64 * 1024
_NO_ACCOUNT = (
    'the secret of this engine must be the key file of a service account: JSON with "type": '
    '"service_account", "client_email", "private_key", "private_key_id" and "token_uri"'
)


class _KeyFile(Struct, frozen=True):
    type: Literal["service_account"]
    client_email: Annotated[str, Meta(pattern=r"^[^\s@]+@[^\s@]+$")]
    private_key: str
    private_key_id: str
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address


class ServiceAccount:
    """
    Who asks, and the key that proves it.

    Raises:
        OperationFailed: The secret is no key file of one.
    """

    def __init__(self, secret: Secret) -> None:
        try:
            file = msgspec.json.decode(secret.reveal(), type=_KeyFile)
            key = load_pem_private_key(file.private_key.encode(), password=None)
        except (msgspec.DecodeError, RecursionError, ValueError, TypeError):
            raise OperationFailed(_NO_ACCOUNT) from None
        if not isinstance(key, RSAPrivateKey) or key.key_size < _LEAST_BITS:
            raise OperationFailed(f"{_NO_ACCOUNT}; its key must be of RSA, {_LEAST_BITS} bits or more")
        self._key = key
        self._key_id = file.private_key_id
        self.email = file.client_email
        self.token_uri = file.token_uri

    def statement(self, now: int) -> str:
        """That it asks for a token, signed; good for one endpoint and an hour."""
        head = {"typ": "JWT", "alg": "RS256", "kid": self._key_id}
        claims = {"iat": now, "exp": now + _STATEMENT_S, "iss": self.email}
        claims |= {"aud": self.token_uri, "scope": SCOPE}
        said = b".".join([_base64(msgspec.json.encode(part)) for part in (head, claims)])
        signature = self._key.sign(said, PKCS1v15(), SHA256())
        return b".".join([said, _base64(signature)]).decode()


class _Granted(Struct):
    access_token: Annotated[str, Meta(pattern=r"^[!-~]{1,16384}$")]
    expires_in: Annotated[float, Meta(ge=0, le=86400)] = 3600.0


class GoogleToken:
    """
    The token of one account, as a header line.

    Args:
        pin: Resolves and checks the token endpoint's host before each connection.
        now: Unix seconds, for what is signed.
        monotonic: Seconds, for how long a token lives.
    """

    def __init__(
        self,
        account: ServiceAccount,
        *,
        pin: Callable[[], Awaitable[str]],
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account = account
        self._now = now
        self._monotonic = monotonic
        root, base, where = parsed_address(account.token_uri)
        self._target = base or root or "/"
        self._sweeper = Sweeper()
        self._client = client_of(where, self._sweeper, pin=pin)
        self._line = b""
        self._ends_at = self._asked_at = float("-inf")
        self._failure = ""
        """What the last fetch failed with."""
        self._fetch: asyncio.Task[None] | None = None

    async def line(self, *, timeout_s: float) -> bytes:
        """
        Raises:
            UpstreamError: The endpoint gave none; said again to all who ask within some seconds.
            DeadlineExceeded: It did not answer in time.
        """
        left_s = self._ends_at - self._monotonic()
        if left_s > RENEW_BEFORE_S:
            return self._line
        fetch = self._fetching()
        if left_s > 0:
            return self._line
        if fetch is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(fetch)
            except TimeoutError as exc:
                raise DeadlineExceeded("the provider's token endpoint did not answer in time") from exc
        if self._failure:
            raise UpstreamError(self._failure)
        return self._line

    def forget(self) -> None:
        """The provider refused the token: the next request fetches another."""
        self._ends_at = float("-inf")

    async def aclose(self) -> None:
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])
        self._client.close()
        self._sweeper.stop_when_empty()

    def _fetching(self) -> asyncio.Task[None] | None:
        """The fetch that runs, or a new one where the last is long enough ago."""
        if self._fetch is None and self._monotonic() - self._asked_at >= PAUSE_S:
            self._asked_at = self._monotonic()
            self._fetch = asyncio.get_running_loop().create_task(self._renew())
        return self._fetch

    async def _renew(self) -> None:
        try:
            granted = await self._granted()
            self._line = f"authorization: Bearer {granted.access_token}\r\n".encode()
            self._ends_at = self._monotonic() + granted.expires_in
            self._failure = ""
        except HttpFailure as exc:
            self._failure = f"the provider's token endpoint cannot be asked: {exc}"
        except UpstreamError as exc:
            self._failure = exc.message
        finally:
            self._fetch = None

    async def _granted(self) -> _Granted:
        asked = {"assertion": self._account.statement(int(self._now())), "grant_type": _GRANT}
        host = self._client.address.host_header
        data = request_bytes("POST", self._target, host, _FORM, urlencode(asked).encode())
        exchange = await self._client.request(data, Timeouts(), total_s=FETCH_S)
        try:
            body = await exchange.read_all(_MAX_BYTES)
        finally:
            exchange.release()
        if exchange.status != 200:
            raise UpstreamError(
                f"the provider's token endpoint refused the service account of this deployment "
                f"({exchange.status})"
            )
        try:
            return msgspec.json.decode(body, type=_Granted)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise UpstreamError("the answer of the provider's token endpoint cannot be read") from None


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
