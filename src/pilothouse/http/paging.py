"""How every list is paged: `cursor` goes on where the last page ended, `limit` bounds the page."""

from typing import Annotated

from litestar.params import PathParameter, QueryParameter

Cursor = Annotated[
    str | None, QueryParameter(max_length=512, description="`next` of the page before.", required=False)
]
Limit = Annotated[
    int, QueryParameter(ge=1, le=1000, description="Items at most on this page.", required=False)
]
Word = Annotated[str | None, QueryParameter(max_length=200, required=False)]
"""A name to filter by."""
Flag = Annotated[bool, QueryParameter(required=False)]
Id = Annotated[str, PathParameter(max_length=200)]
