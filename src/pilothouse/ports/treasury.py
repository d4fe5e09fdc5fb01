"""
The Treasury: where a controller's allotments come from, when several houses share limits.

A house is a controller, its store and its workers. Never asked on the request
path: a request waits for the ledger of its own house, and for no more than a moment.
"""

from typing import Protocol

from pilothouse.domain.allotment import Statement, TreasuryAnswer


class Treasury(Protocol):
    """One exchange at a time."""

    async def exchange(self, statement: Statement) -> TreasuryAnswer | None:
        """
        Say what this house holds, and get what is allotted.

        What all houses hold of a limit, and what is left in the treasury, is never more than the limit, but
        for what a house says that it holds already.

        Returns:
            None: it cannot be reached, or not in time. Whether it heard is not known.
        """
        ...

    async def aclose(self) -> None: ...
