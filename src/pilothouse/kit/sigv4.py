"""
AWS Signature Version 4, in headers.

Source: "Signing AWS requests with Signature Version 4" and its S3 annex (there a
path is signed as it is sent, and the body's digest is a signed header; elsewhere the
path is encoded once more). Pure but for what is passed in; the tests hold it against
the published examples and against AWS's own client.
"""

import hmac
import time
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import parse_qsl, quote

from msgspec import Struct

from pilothouse.kit.secret import Secret

_ALGORITHM = "AWS4-HMAC-SHA256"


class SigningKey(Struct, frozen=True, kw_only=True):
    access_key_id: str
    secret: Secret
    region: str
    service: str = "s3"
    session_token: Secret | None = None


def encode_path(path: str) -> str:
    """A path as S3 signs it: each byte but the unreserved ones and `/` percent-encoded, once."""
    return quote(path, safe="/-_.~")


def sign(
    method: str,
    host: str,
    target: str,
    headers: Mapping[str, str],
    *,
    key: SigningKey,
    now: float,
    body: bytes = b"",
) -> dict[str, str]:
    """
    The headers that make a request valid; `headers` are among those that are signed.

    Args:
        host: As the Host header has it.
        target: Path (for S3 encoded by `encode_path`) and query, as they are sent.
        now: Unix seconds.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    digest = sha256(body).hexdigest()
    sent = {**headers, "x-amz-date": moment}
    is_s3 = key.service == "s3"
    if is_s3:
        sent["x-amz-content-sha256"] = digest
    if key.session_token is not None:
        sent["x-amz-security-token"] = key.session_token.reveal()
    canonical = {name.lower(): " ".join(value.split()) for name, value in (sent | {"host": host}).items()}
    names = ";".join(sorted(canonical))
    path, _, query = target.partition("?")
    request = "\n".join(
        [
            method,
            path if is_s3 else quote(path, safe="/-_.~"),
            _canonical_query(query),
            *(f"{name}:{canonical[name]}" for name in sorted(canonical)),
            "",
            names,
            digest,
        ]
    )
    scope = f"{moment[:8]}/{key.region}/{key.service}/aws4_request"
    text = "\n".join([_ALGORITHM, moment, scope, sha256(request.encode()).hexdigest()])
    secret = f"AWS4{key.secret.reveal()}".encode()
    for part in scope.split("/"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={key.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return sent


def _canonical_query(query: str) -> str:
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    return "&".join(f"{name}={value}" for name, value in pairs)
