"""How every list is paged: `cursor` goes on where the last page ended, `limit` bounds the page."""

from typing import Annotated

from litestar.params import Parameter

Cursor = Annotated[
    str | None, Parameter(max_length=512, description="`next` of the page before.", required=False)
]
Limit = Annotated[int, Parameter(ge=1, le=1000, description="Items at most on this page.", required=False)]
