"""
What hardware costs an hour, as the user says. Nothing here has a default: a price that
nobody gave is None, and is never guessed. Money is integer micro dollars.
"""

from datetime import date

from msgspec import Struct

HERE = "here"
"""The name that own hardware has in a prices file: this machine."""
HOURS_PER_MONTH = 730


class Prices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prices file."""

    as_of: date
    """When these prices were looked up; it is shown with every sum made of them."""
    usd_per_hour: dict[str, float]
    """By instance type as its cloud spells it; own hardware under any name, this machine as `here`."""

    def micro_usd_per_hour(self, name: str) -> int | None:
        """None: the file does not say."""
        price = self.usd_per_hour.get(name)
        return None if price is None else round(price * 1_000_000)

    @property
    def fault(self) -> str:
        """What is wrong with it; empty when nothing is."""
        wrong = [name for name, price in self.usd_per_hour.items() if not 0 <= price < 1_000_000]
        return f"usd_per_hour.{wrong[0]} must be from 0 to a million" if wrong else ""
