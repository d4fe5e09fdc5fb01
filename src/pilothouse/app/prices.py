"""The prices in force: the file of `--prices`, else the one that comes with Pilothouse."""

from importlib.resources import files
from pathlib import Path

from pilothouse.config import Settings, read_token_prices
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.price import TokenPrices

OURS = "prices.yaml"


def prices_of(settings: Settings) -> TokenPrices:
    """
    Raises:
        InvalidRequest: The file is no file of prices; the message names the fault.
        OperationFailed: It cannot be read.
    """
    if not settings.prices:
        return read_token_prices(files("pilothouse").joinpath(OURS).read_bytes(), name=OURS)
    try:
        return read_token_prices(Path(settings.prices).read_bytes(), name=settings.prices)
    except OSError as exc:
        raise OperationFailed(f"cannot read the prices {settings.prices}: {exc.strerror}") from exc
