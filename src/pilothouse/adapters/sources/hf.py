"""
Source `hf:org/name[@revision]/file`: a GGUF file of a repository on the Hugging Face hub.

Two routes of the hub's documented API are all that is needed: what a revision
holds (with the sha256 and size of each large file), and the file itself, which
the hub redirects to its storage. The token goes to the hub alone, never along a
redirect.
"""

import difflib
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from pilothouse.adapters.sources._ask import Answer, ask
from pilothouse.adapters.sources._connection import Authorize, Network
from pilothouse.adapters.sources._download import Downloader, Wanted
from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound, OperationFailed
from pilothouse.domain.model_file import another_file, why_not_gguf
from pilothouse.domain.model_name import clean_name
from pilothouse.kit.egress import Address
from pilothouse.kit.secret import Secret
from pilothouse.ports.source import Fetched, Identity, Progress

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}))?/(?P<file>[^\s?#\\]{{1,512}})"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Lfs(Struct):
    sha256: str = ""


class _Sibling(Struct):
    rfilename: str
    lfs: _Lfs | None = None


class _Revision(Struct):
    """As much of the hub's answer as is used here."""

    sha: str
    siblings: list[_Sibling] = []
    tags: list[str] = []
    cardData: dict[str, Any] | None = None  # noqa: N815 - the hub's name for it


class _Place(Struct, frozen=True):
    repo: str
    revision: str
    file: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}/{self.file}"


class HfSource:
    """
    Args:
        endpoint: Address of the hub, or of a mirror that speaks its API.
        token: For private and gated repositories, if any. Called at each fetch.
    """

    scheme = "hf"

    def __init__(
        self,
        downloader: Downloader,
        network: Network,
        *,
        endpoint: str,
        token: Callable[[], Secret | None],
    ) -> None:
        self._downloader = downloader
        self._network = network
        self._endpoint = endpoint.rstrip("/")
        self._token = token

    def identify(self, reference: str) -> Identity:
        place = _place(reference)
        is_fixed = _COMMIT.fullmatch(place.revision) is not None
        return Identity(name=clean_name(PurePosixPath(place.file).stem), is_fixed=is_fixed)

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        place = _place(reference)
        authorize = _authorize(self._token())
        progress(f"asking the hub for {place}", 0, 0)
        revision = self._revision(place, authorize)
        found = next((one for one in revision.siblings if one.rfilename == place.file), None)
        if found is None:
            raise NotFound(f"{place.repo}@{place.revision} holds no {place.file!r}; {_near(place, revision)}")
        promised = f"sha256:{found.lfs.sha256}" if found.lfs and _SHA256.fullmatch(found.lfs.sha256) else ""
        if expect and promised and promised != expect:
            raise another_file(f"{place} on the hub", found=promised, expected=expect)

        def check_head(head: bytes) -> None:
            if fault := why_not_gguf(head):
                raise ModelFileRefused(f"{place} is {fault}")

        wanted = Wanted(
            url=f"{self._endpoint}/{place.repo}/resolve/{revision.sha}/{quote(place.file)}",
            what=PurePosixPath(place.file).name,
            expect=expect or promised,
            check_head=check_head,
            authorize=authorize,
            when_denied=_HOW_TO_LOG_IN,
        )
        target = workdir / "model.gguf"
        digest = self._downloader.fetch(wanted, target, progress)
        return Fetched(path=target, source_digest=digest, licence=_licence(revision))

    def _revision(self, place: _Place, authorize: Authorize | None) -> _Revision:
        url = f"{self._endpoint}/api/models/{place.repo}/revision/{quote(place.revision)}?blobs=true"
        answer = ask(url, what=f"hf:{place}", network=self._network, authorize=authorize)
        if answer.status != 200:
            raise self._refusal(place, answer, has_token=authorize is not None)
        try:
            revision = msgspec.json.decode(answer.body, type=_Revision)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise OperationFailed(f"hf:{place}: {self._endpoint} does not answer as the hub does") from exc
        if not _COMMIT.fullmatch(revision.sha):
            raise OperationFailed(f"hf:{place}: {self._endpoint} names no commit for that revision")
        return revision

    def _refusal(self, place: _Place, answer: Answer, *, has_token: bool) -> Exception:
        code = answer.headers.get("x-error-code", "")
        if code == "GatedRepo":
            return OperationFailed(
                f"{place.repo} is gated: its owner wants his terms accepted on its page at {self._endpoint}. "
                f"{_HOW_TO_LOG_IN}"
            )
        if answer.status in (401, 403):
            has = "the token is not accepted, or has no right to it" if has_token else "no token is set"
            return OperationFailed(
                f"{place.repo} is private, or does not exist (HTTP {answer.status}; {has}). {_HOW_TO_LOG_IN}"
            )
        if answer.status == 404:
            what = (
                f"revision {place.revision!r} of {place.repo}" if code == "RevisionNotFound" else place.repo
            )
            return NotFound(f"the hub has no {what}; check the name")
        return OperationFailed(f"hf:{place}: the hub answered HTTP {answer.status}; try again later")


def _authorize(token: Secret | None) -> Authorize | None:
    if token is None:
        return None

    def authorize(_method: str, _address: Address) -> dict[str, str]:
        return {"Authorization": f"Bearer {token.reveal()}"}

    return authorize


_HOW_TO_LOG_IN = (
    "Make a token with read access there, put it into a file, and start with --set hf_token=file:PATH"
)


def _place(reference: str) -> _Place:
    found = _REFERENCE.fullmatch(reference)
    if not found or ".." in found["file"].split("/") or found["file"].endswith("/"):
        raise InvalidRequest(
            f"hf:{reference[:100]} does not name a file: write hf:org/name/file.gguf, or "
            "hf:org/name@revision/file.gguf",
            param="source",
        )
    if not found["file"].lower().endswith(".gguf"):
        raise InvalidRequest(
            f"hf:{reference[:100]}: only .gguf files are loaded; name one of the repository", param="source"
        )
    return _Place(found["repo"], found["revision"] or "main", found["file"])


def _licence(revision: _Revision) -> str:
    said = (revision.cardData or {}).get("license")
    if isinstance(said, str) and said:
        return said[:100]
    tags = [tag.removeprefix("license:") for tag in revision.tags if tag.startswith("license:")]
    return tags[0][:100] if tags else ""


def _near(place: _Place, revision: _Revision) -> str:
    models = [one.rfilename for one in revision.siblings if one.rfilename.lower().endswith(".gguf")]
    if not models:
        return "it holds no GGUF file at all"
    near = difflib.get_close_matches(place.file, models, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(models)[:10])}"
