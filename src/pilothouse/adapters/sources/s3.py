"""
Source `s3://bucket/key`: a GGUF file of an object store that speaks the S3 API.

The object's own ETag is asked for first and wanted with each range, so that an
object that is replaced during the download is noticed, not mixed. Where the store
knows a sha256 of it (its checksum, or `sha256` in its metadata), that is what must
arrive.
"""

import base64
import binascii
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from msgspec import Struct

from pilothouse.adapters.sources._ask import Answer, ask
from pilothouse.adapters.sources._connection import Network
from pilothouse.adapters.sources._download import Downloader, Wanted
from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound, OperationFailed
from pilothouse.domain.model_file import another_file, why_not_gguf
from pilothouse.domain.model_name import clean_name
from pilothouse.kit.egress import Address
from pilothouse.kit.sigv4 import SigningKey, encode_path, sign
from pilothouse.ports.source import Fetched, Identity, Progress

_REFERENCE = re.compile(r"//(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^\x00-\x1f\x7f]{1,1024})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Object(Struct, frozen=True):
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class S3Source:
    """
    Args:
        endpoint: Address of the store, for one that is not AWS; buckets are part of its paths.
        key: Without one, requests are not signed: public objects only. Called at each fetch.
        now: Unix seconds; a signature holds for some minutes.
    """

    scheme = "s3"

    def __init__(
        self,
        downloader: Downloader,
        network: Network,
        *,
        endpoint: str,
        region: str,
        key: Callable[[], SigningKey | None],
        now: Callable[[], float],
    ) -> None:
        self._downloader = downloader
        self._network = network
        self._endpoint = endpoint.rstrip("/")
        self._region = region
        self._key = key
        self._now = now

    def identify(self, reference: str) -> Identity:
        return Identity(name=clean_name(PurePosixPath(_object(reference).key).stem))

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        place = _object(reference)
        key = self._key()
        progress(f"asking for {place}", 0, 0)
        answer = ask(
            self._url(place),
            what=str(place),
            network=self._network,
            method="HEAD",
            authorize=lambda method, address: _signed(
                key, method, address, {"x-amz-checksum-mode": "ENABLED"}, self._now()
            ),
        )
        if answer.status != 200:
            raise self._refusal(place, answer, is_signed=key is not None)
        promised = _promised_digest(answer)
        if expect and promised and promised != expect:
            raise another_file(str(place), found=promised, expected=expect)
        etag = answer.headers.get("etag", "")
        pinned = {"if-match": etag} if etag else {}

        def check_head(head: bytes) -> None:
            if fault := why_not_gguf(head):
                raise ModelFileRefused(f"{place} is {fault}")

        wanted = Wanted(
            url=self._url(place),
            what=str(place),
            expect=expect or promised,
            check_head=check_head,
            authorize=lambda method, address: _signed(key, method, address, pinned, self._now()),
            when_denied="Check the key's rights to this object",
        )
        target = workdir / "model.gguf"
        return Fetched(path=target, source_digest=self._downloader.fetch(wanted, target, progress))

    def _url(self, place: _Object) -> str:
        path = encode_path(place.key)
        if self._endpoint:
            return f"{self._endpoint}/{place.bucket}/{path}"
        if "." in place.bucket:  # no certificate of the store covers such a name
            return f"https://s3.{self._region}.amazonaws.com/{place.bucket}/{path}"
        return f"https://{place.bucket}.s3.{self._region}.amazonaws.com/{path}"

    def _refusal(self, place: _Object, answer: Answer, *, is_signed: bool) -> Exception:
        if answer.status == 404:
            return NotFound(f"there is no {place}; check bucket and key")
        if answer.status in (301, 307, 400) and (region := answer.headers.get("x-amz-bucket-region")):
            return OperationFailed(f"{place} lies in region {region}: start with --set s3_region={region}")
        if answer.status in (401, 403):
            how = (
                "the key is wrong or has no right to it, or this machine's clock is off"
                if is_signed
                else "no key is set: --set s3_access_key_id=ID --set s3_secret_access_key=file:PATH"
            )
            return OperationFailed(f"{place}: access denied (HTTP {answer.status}): {how}")
        return OperationFailed(f"{place}: the store answered HTTP {answer.status}; try again later")


def _signed(
    key: SigningKey | None, method: str, address: Address, headers: dict[str, str], now: float
) -> dict[str, str]:
    if key is None:
        return headers
    return sign(method, address.host_header, address.target, headers, key=key, now=now)


def _promised_digest(answer: Answer) -> str:
    """The sha256 of the whole object, where the store knows it."""
    said = answer.headers.get("x-amz-meta-sha256", "").removeprefix("sha256:").lower()
    if _SHA256.fullmatch(said):
        return f"sha256:{said}"
    checksum = answer.headers.get("x-amz-checksum-sha256", "")
    is_whole = answer.headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT"
    try:
        raw = base64.b64decode(checksum, validate=True)
    except binascii.Error:  # of an upload in parts: `...=-3`
        return ""
    return f"sha256:{raw.hex()}" if len(raw) == 32 and is_whole else ""


def _object(reference: str) -> _Object:
    found = _REFERENCE.fullmatch(reference)
    if not found or ".." in found["bucket"] or found["key"].endswith("/") or "//" in found["key"]:
        raise InvalidRequest(
            f"s3:{reference[:100]} does not name an object: write s3://bucket/path/model.gguf", param="source"
        )
    if {".", ".."} & set(found["key"].split("/")):
        raise InvalidRequest(f"s3:{reference[:100]}: the key has . or .. as a part", param="source")
    return _Object(found["bucket"], found["key"])
