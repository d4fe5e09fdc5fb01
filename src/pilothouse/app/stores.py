"""
Which store a home uses: SQLite in the home, or PostgreSQL; and the home remembers which.

The drivers are imported when they are needed: SQLAlchemy takes half a second,
and psycopg is an extra.
"""

import importlib
import socket
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pilothouse.app.home import write_private
from pilothouse.config import Settings, read_secret
from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.ids import new_id
from pilothouse.ports.store import Store


class _Choice(Struct, frozen=True, kw_only=True):
    store: str = ""
    store_password: str = ""
    """A reference, never a password."""


def open_store(settings: Settings) -> Store:
    """
    Runs on the store's thread, where SQLAlchemy is imported while the engine already starts.

    Raises:
        StoreUnavailable, OperationFailed: See the stores; the message says the fix.
    """
    if settings.is_sqlite:
        module = importlib.import_module("pilothouse.adapters.stores.sqlite")
        opened: Store = module.SqliteStore(settings.database_file)
    else:
        opened = open_postgres(settings.store, password_of(settings.store_password))
    return opened


def place_of(settings: Settings) -> str:
    """The store as it may be shown: an address without its options."""
    return str(settings.database_file) if settings.is_sqlite else settings.store.partition("?")[0]


def open_postgres(url: str, password: Callable[[], str | None]) -> Any:
    """
    Raises:
        OperationFailed: The driver is not installed.
    """
    try:
        module = importlib.import_module("pilothouse.adapters.stores.postgresql")
    except ModuleNotFoundError as exc:
        raise OperationFailed(
            f"the PostgreSQL driver is not installed ({exc.name}). fix: pip install 'pilothouse[postgresql]'"
        ) from exc
    return module.PostgresStore(url, password=password)


def password_of(reference: str) -> Callable[[], str | None]:
    """Read anew at each connection, so that a changed password needs no restart where it is in a file."""
    return lambda: read_secret(reference).reveal() if reference else None


def recall(settings: Settings) -> Settings:
    """The settings with the store that this home used last, unless they name one."""
    known = _known(settings)
    if settings.store or known is None:
        return settings
    return replace(
        settings, store=known.store, store_password=settings.store_password or known.store_password
    )


def was_used(settings: Settings) -> bool:
    """Whether this home used this very store before: then its address is right, and it is only away."""
    known = _known(settings)
    return known is not None and known.store == settings.store != ""


def _known(settings: Settings) -> _Choice | None:
    try:
        return msgspec.json.decode(settings.store_file.read_bytes(), type=_Choice)
    except (OSError, msgspec.MsgspecError):
        return None


def remember(settings: Settings) -> None:
    """Write down which store was opened: a later `up` without --store must not begin an empty one."""
    choice = (
        _Choice()
        if settings.is_sqlite
        else _Choice(store=settings.store, store_password=settings.store_password)
    )
    text = msgspec.json.encode(choice)
    if not settings.store_file.exists() and settings.is_sqlite:
        return
    write_private(settings.store_file, text)


def holder_of(settings: Settings) -> str:
    """This home, as others see it in the lease. A copied name or path does not make two homes one."""
    file = settings.home_path / "instance"
    try:
        known = file.read_text().strip()
    except FileNotFoundError:
        known = new_id("")
        write_private(file, known.encode())
    return f"{socket.gethostname()}:{settings.home} ({known})"
