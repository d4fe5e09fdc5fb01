"""
What a request costs: the one place where tokens become money.

TokenPrices are integers, in millionths of a dollar for a million tokens, so that a
dollar for a million tokens is 1,000,000. A request's cost is rounded up once,
in the end, to a whole millionth: many small requests never come out cheaper
than one large one.
"""

from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from pilothouse.domain.errors import InvalidRequest

MILLION = 10**6
BYTES_PER_TOKEN = 3
"""For a prompt that no engine counted: where an answer was cut before it told its usage."""
TEMPLATE_TOKENS = 64
"""What a chat template may add to the bytes of its messages: role marks, begin and end."""


class Price(Struct, frozen=True):
    """Millionths of a dollar for a million tokens."""

    input: int = 0
    output: int = 0
    cached: int = 0
    """Of those prompt tokens that the engine had in its prefix cache."""

    def cost_micro_usd(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """The cost of one request, rounded up once. Cached tokens are a part of the input."""
        cached_tokens = min(cached_tokens, input_tokens)
        total = (
            (input_tokens - cached_tokens) * self.input
            + cached_tokens * self.cached
            + output_tokens * self.output
        )
        return -(-total // MILLION)

    def bound_micro_usd(self, input_tokens: int, output_tokens: int) -> int:
        """No request with at most so many tokens costs more."""
        dearest_input = max(self.input, self.cached)
        return -(-(input_tokens * dearest_input + output_tokens * self.output) // MILLION)


class PriceRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price as it stands in the file: dollars for a million tokens."""

    input_usd: Decimal = Decimal(0)
    """Of a prompt."""
    cached_input_usd: Decimal | None = None
    """Of the part of a prompt that the engine had in its cache; by default as `input_usd`."""
    output_usd: Decimal = Decimal(0)
    """Of an answer."""


class PriceFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file of prices. A deployment's own price goes before its model's."""

    as_of: str
    """The day that these prices were looked up, as `YYYY-MM-DD`."""
    models: Mapping[str, PriceRow] = {}
    """By the name that the engine or the provider knows the model by."""
    deployments: Mapping[str, PriceRow] = {}
    """By the name of a deployment: for engines of one's own."""


class TokenPrices:
    """The prices that are in force."""

    def __init__(self, file: PriceFile) -> None:
        """
        Raises:
            InvalidRequest: A negative or absurd price.
        """
        self.as_of = file.as_of
        self._models = {name: _price(row, f"models.{name}") for name, row in file.models.items()}
        self._deployments = {
            name: _price(row, f"deployments.{name}") for name, row in file.deployments.items()
        }

    def of(self, deployment: str, model: str) -> Price | None:
        """None: it costs nothing."""
        found = self._deployments.get(deployment) or self._models.get(model)
        return found if found and (found.input or found.output or found.cached) else None


def _price(row: PriceRow, where: str) -> Price:
    cached = row.input_usd if row.cached_input_usd is None else row.cached_input_usd
    return Price(
        _micro(row.input_usd, f"{where}.input_usd"),
        _micro(row.output_usd, f"{where}.output_usd"),
        _micro(cached, f"{where}.cached_input_usd"),
    )


def _micro(usd: Decimal, where: str) -> int:
    """Rounded up, where somebody wrote more than six digits after the point."""
    if not 0 <= usd <= MILLION:
        raise InvalidRequest(
            f"prices: {where}: {usd} is not within 0..{MILLION} dollars for a million tokens"
        )
    scaled = usd * MILLION
    return int(scaled) + (scaled != int(scaled))
