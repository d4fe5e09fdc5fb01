"""The how-to of limits does what it says: with the real program, the default model, and its own blocks."""

import re
from pathlib import Path

import pytest

from page_rig import blocks, blocks_that_start, run

PAGE = "limits-and-budgets.md"

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_the_how_to_of_limits_works_from_top_to_bottom(tmp_path: Path) -> None:
    for name, text in zip(("limits.yaml", "prices.yaml"), blocks(PAGE, "yaml"), strict=True):
        (tmp_path / name).write_text(text)
    up, ask = blocks_that_start(PAGE)
    drained = "sleep 2\n" + ask.strip().splitlines()[-1]

    said = run(up + ask + drained, tmp_path, PILOTHOUSE_HOME=str(tmp_path / "home"))

    expected = re.findall(r"(?m)^ask +# (\d+)", ask)
    assert re.findall(r"(?m)^HTTP/1.1 (\d+)", said) == expected == ["200", "200", "429", "200"]
    left = [int(number) for number in re.findall(r"(?i)x-ratelimit-remaining-requests: (\d+)", said)]
    assert left[:2] == [1, 0]
    assert 1 <= left[-1] < 120, "a raised limit does not fill the bucket, it fills sooner"
    (wait_s,) = re.findall(r"(?i)retry-after: (\d+)", said)
    assert 1 <= int(wait_s) <= 30
    assert "100000 tpm" in said
