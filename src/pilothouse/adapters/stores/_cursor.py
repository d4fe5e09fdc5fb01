"""Cursors of paged lists: the sort key of the last item, written so that nobody takes it apart."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, Select

from pilothouse.domain.errors import InvalidRequest
from pilothouse.ports.store import Page

T = TypeVar("T")
R = TypeVar("R", bound=tuple[Any, ...])


def encode_cursor(place: tuple[Any, ...]) -> str:
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def decode_cursor(cursor: str, shape: type[R]) -> R:
    """
    Raises:
        InvalidRequest: Not a cursor of this list.
    """
    try:
        place: R = msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=shape)
        return place
    except (ValueError, msgspec.DecodeError) as exc:
        raise InvalidRequest(
            "cursor: not one of this list; pass `next` of the page before, or none for the first page",
            param="cursor",
        ) from exc


def fetch_page(
    connection: Connection,
    query: Select[Any],
    *,
    limit: int,
    make: Callable[[Row[Any]], T],
    place: Callable[[T], tuple[Any, ...]],
) -> Page[T]:
    """Read one page of an ordered query. One row more than asked for tells whether there is a next page."""
    items = [make(row) for row in connection.execute(query.limit(limit + 1))]
    if len(items) <= limit:
        return Page(items)
    return Page(items[:limit], encode_cursor(place(items[limit - 1])))
