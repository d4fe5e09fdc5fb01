"""The examples of the guide to limits are read as the program reads them."""

import re
from pathlib import Path

from pilothouse.cli.settings import parse_more
from pilothouse.config import read_spec, read_token_prices
from pilothouse.domain.limits import limits_of, spec_words
from pilothouse.domain.price import Price
from pilothouse.kit.resp import parse_address

GUIDE = (Path(__file__).parents[1].parent / "docs" / "howto" / "limits-and-budgets.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_spec_of_the_guide_holds_its_limits() -> None:
    limits = read_spec(blocks("yaml")[0].encode()).endpoints["chat"].limits

    assert limits_of(spec_words(limits)).budget_micro_usd == 100_000_000
    assert limits_of(limits.per_subject).rpm == 30


def test_the_prices_of_the_guide_are_in_force_as_written() -> None:
    prices = read_token_prices(blocks("yaml")[1].encode(), name="prices.yaml")

    assert prices.of("smollm2", "any") == Price(1_000_000, 2_000_000, 500_000)


def test_the_settings_of_the_guide_to_sharing_are_there() -> None:
    text = (Path(__file__).parents[1].parent / "docs" / "howto" / "share-limits.md").read_text()
    line = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    given = re.findall(r"--set (\S+)", line)

    values = parse_more(given)

    assert parse_address(str(values["ledger_url"])).host == "10.0.0.5"
    assert str(values["ledger_password"]).startswith("file:")
    lost = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    assert [parse_more([f"ledger_lost={one}"])["ledger_lost"] for one in lost[1:]] == ["closed", "share"]
