"""The how-to of routing does what it says: with the real program, three real replicas, and its own blocks."""

import re
from pathlib import Path

import pytest

from page_rig import blocks, blocks_that_start, run

PAGE = "routing-and-fallback.md"

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_the_how_to_of_routing_works_from_top_to_bottom(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(blocks(PAGE, "yaml")[1])
    script = "echo ---\n".join(blocks_that_start(PAGE))

    _, chosen, crowded, survived = run(script, tmp_path, PILOTHOUSE_HOME=str(tmp_path / "home")).split(
        "---\n"
    )

    where = re.findall(r"HTTP/1.1 200 .*deployment: (\w+)", chosen)
    assert len(where) == 23
    assert len(set(where[:3])) == 1
    assert set(where[3:]) == {"main", "spare"}
    codes = re.findall(r"HTTP/1.1 (\d+)", crowded)
    assert len(codes) == 12
    assert set(codes) == {"200", "503"}
    assert len(re.findall(r"HTTP/1.1 503.*retry-after: \d+", crowded, re.IGNORECASE)) == codes.count("503")
    assert re.findall(r"HTTP/1.1 (\d+)", survived) == ["200"]
