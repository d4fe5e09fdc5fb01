"""
What a start declares: the default when nothing was declared, and the file of `--config`.

The file counts once for each `up`, not at each restart of the controller, so
that a crash never undoes what was declared over the API since.
"""

from pathlib import Path

from pilothouse.config import Settings, read_spec
from pilothouse.control.declarations import Declarations
from pilothouse.domain.errors import InvalidRequest, OperationFailed, PilothouseError
from pilothouse.domain.spec import DEFAULT_SPEC, Spec
from pilothouse.kit.log import Log
from pilothouse.ports.store import StoredSpec

_LONGEST_BYTES = 8 * 1024 * 1024


async def seed(declarations: Declarations, settings: Settings, settings_file: Path, log: Log) -> StoredSpec:
    """
    Declare what this start brings along; returns what holds now.

    Raises:
        PilothouseError: Nothing was declared before, and the file cannot be used.
    """
    present = await declarations.current()
    marker = settings.home_path / "config.applied"
    start = _start_of(settings_file)
    if settings.config and not _is_marked(marker, start):
        try:
            spec = read_config(Path(settings.config))
            present = await declarations.declare(spec, expected_revision=None, author="config")
        except PilothouseError as exc:
            if not present.revision:
                raise
            log.event("config_refused", "error", message=str(exc))  # what ran before runs on
        marker.write_text(start)
    elif not present.revision:
        present = await declarations.declare(DEFAULT_SPEC, expected_revision=0, author="default")
    return present


def still_holds(spec: Spec, settings: Settings) -> bool:
    """Whether this start surely brings nothing else along than what was declared before."""
    if not settings.config:
        return True
    try:
        return read_config(Path(settings.config)) == spec
    except PilothouseError:
        return False


def read_config(path: Path) -> Spec:
    """
    Read a spec file.

    Raises:
        InvalidRequest: It is not a spec; the message names the fault.
        OperationFailed: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_BYTES + 1)
    except OSError as exc:
        raise OperationFailed(f"cannot read the config file {path}: {exc.strerror}") from exc
    if len(text) > _LONGEST_BYTES:
        raise InvalidRequest(f"{path}: over {_LONGEST_BYTES} bytes is no spec file")
    return read_spec(text, name=str(path))


def _start_of(settings_file: Path) -> str:
    """The supervisor writes the settings anew at each `up`, and only then."""
    found = settings_file.stat()
    return f"{found.st_ino} {found.st_mtime_ns}"


def _is_marked(marker: Path, start: str) -> bool:
    try:
        return marker.read_text() == start
    except OSError:
        return False
