"""
A small question to a server of models: what it says about a file, before the file is fetched.

Belongs here: the exchange, bounded. Does not: what the answer means.
"""

import ssl
from collections.abc import Mapping
from http.client import HTTPException

from msgspec import Struct

from pilothouse.adapters.sources._connection import Authorize, Network, get
from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.egress import EgressRefused

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""A repository with tens of thousands of files is described in less."""
_USER = {"User-Agent": "pilothouse", "Accept-Encoding": "identity"}


class Answer(Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


def ask(
    url: str, *, what: str, network: Network, authorize: Authorize | None = None, method: str = "GET"
) -> Answer:
    """
    Raises:
        OperationFailed: The network failed, or the policy refused the address.
    """
    try:
        with get(url, _USER, network, authorize=authorize, method=method) as response:
            body = response.read(MAX_ANSWER_BYTES + 1)
            headers = {name.lower(): value for name, value in response.getheaders()}
            status = response.status
    except EgressRefused as exc:
        raise OperationFailed(f"{what}: not connected: {exc}") from exc
    except ssl.SSLCertVerificationError as exc:
        raise OperationFailed(
            f"{what}: the server's certificate is not trusted ({exc.verify_message}). If your network has "
            "its own authority, set SSL_CERT_FILE to its certificates"
        ) from exc
    except (HTTPException, OSError) as exc:
        raise OperationFailed(
            f"{what}: the server cannot be reached: {str(exc) or type(exc).__name__}. Check the network, "
            "then try again"
        ) from exc
    if len(body) > MAX_ANSWER_BYTES:
        raise OperationFailed(f"{what}: the server's answer is over {MAX_ANSWER_BYTES} bytes")
    return Answer(status, headers, body)
