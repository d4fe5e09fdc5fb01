"""
Filling in the places of a launch: sockets, ports, folder, token.

Belongs here: what each place becomes on this machine, and what must not be in
which text. Does not: running anything.
"""

import re
import secrets
import shutil
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from pilothouse.adapters.targets import _shared_memory
from pilothouse.adapters.targets._book import Book, write_private
from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.folders import make_private
from pilothouse.ports.engine import Launch

_PLACE = re.compile(
    r"\{(name|home|shared_memory|socket|config|log|folder|token|token_file|port\.[a-z][a-z0-9_]*)\}"
)
LOOPBACK = "127.0.0.1"


class Places:
    """What the places of one replica stand for."""

    def __init__(self, book: Book, name: str, launch: Launch) -> None:
        self._launch = launch
        self._texts = launch.config, *launch.env.values()
        self.needs_token = _holds("token", self._texts) or _holds("token_file", launch.argv)
        self._words = {
            "name": name,
            "home": book.home_id,
            "shared_memory": _shared_memory.prefix(book.home_id, name),
            "socket": str(book.socket_path(name)),
            "config": str(book.file_of(name, "config")),
            "log": str(book.log_path(name)),
            "folder": str(book.work_folder(name)),
            "token_file": str(book.file_of(name, "token")),
            **{f"port.{port}": str(number) for port, number in free_ports(launch.ports).items()},
        }

    def make(self) -> None:
        """
        Write what the process finds when it starts.

        Raises:
            OperationFailed: The launch is not one that may be run.
        """
        shutil.rmtree(self._words["folder"], ignore_errors=True)  # of one that died, under the same name
        _shared_memory.clear(self._words["home"], self._words["name"])  # as above
        folder = make_private(Path(self._words["folder"]))
        for path, text in self._launch.files.items():
            write_inside(folder, path, text)
        if self.needs_token:
            token = secrets.token_urlsafe(32)
            write_private(Path(self._words["token_file"]), token.encode())
            self._words["token"] = token
        Path(self._words["socket"]).unlink(missing_ok=True)
        write_private(Path(self._words["config"]), self._filled(self._launch.config).encode())

    @property
    def token_file(self) -> str:
        return self._words["token_file"] if self.needs_token else ""

    @property
    def address(self) -> str:
        return self._filled(self._launch.address)

    @property
    def argv(self) -> list[str]:
        """
        Raises:
            OperationFailed: It would hold the token.
        """
        if _holds("token", self._launch.argv):
            raise OperationFailed(
                "an engine's driver puts a token where everybody can read it; that is a defect"
            )
        return [self._filled(word) for word in self._launch.argv]

    @property
    def env(self) -> Mapping[str, str]:
        return {name: self._filled(text) for name, text in self._launch.env.items()}

    def _filled(self, text: str) -> str:
        """In one pass, so that nothing that was filled in is taken for a place."""
        return _PLACE.sub(lambda found: self._words.get(found[1], found[0]), text)


def write_inside(folder: Path, path: str, text: str) -> None:
    """
    Raises:
        OperationFailed: The path leads out of the folder.
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.name:
        raise OperationFailed(
            f"an engine's driver writes to {path[:100]!r}, out of its folder; that is a defect"
        )
    target = folder / parts
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(target, text.encode())


def free_ports(names: Iterable[str]) -> dict[str, int]:
    """
    A free port of loopback for each name.

    Nobody holds them until the engine does: another program may be quicker. Then
    the engine ends, and is started anew with others.
    """
    with ExitStack() as held:
        found = {}
        for name in names:
            one = held.enter_context(socket.socket())
            one.bind((LOOPBACK, 0))
            found[name] = one.getsockname()[1]
        return found


def _holds(place: str, texts: Iterable[str]) -> bool:
    return any(f"{{{place}}}" in text for text in texts)
