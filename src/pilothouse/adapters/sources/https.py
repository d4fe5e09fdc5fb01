"""Source `https:`: a GGUF file from any server, without credentials."""

from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pilothouse.adapters.sources._download import Downloader, Wanted
from pilothouse.domain.errors import InvalidRequest, ModelFileRefused
from pilothouse.domain.model_file import why_not_gguf
from pilothouse.domain.model_name import clean_name
from pilothouse.kit import egress
from pilothouse.kit.egress import Address, EgressRefused
from pilothouse.ports.source import Fetched, Identity, Progress


class HttpsSource:
    scheme = "https"

    def __init__(self, downloader: Downloader, *, allow_private: bool = False) -> None:
        self._downloader = downloader
        self._allow_private = allow_private

    def identify(self, reference: str) -> Identity:
        return Identity(name=clean_name(PurePosixPath(_path(self._address(reference))).stem), is_fixed=True)

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        address = self._address(reference)
        what = PurePosixPath(_path(address)).name or address.host

        def check_head(head: bytes) -> None:
            if fault := why_not_gguf(head):
                raise ModelFileRefused(f"{what} on {address.host} is {fault}")

        wanted = Wanted(url=address.url, what=what, expect=expect or "", check_head=check_head)
        target = workdir / "model.gguf"
        return Fetched(path=target, source_digest=self._downloader.fetch(wanted, target, progress))

    def _address(self, reference: str) -> Address:
        try:
            return egress.parse_url(f"https:{reference}", allow_private=self._allow_private)
        except EgressRefused as exc:
            raise InvalidRequest(f"https: source not accepted: {exc}", param="source") from exc


def _path(address: Address) -> str:
    return unquote(address.target.partition("?")[0])
