"""The how-to of routing does what it says: with the real program, three real replicas, and its own blocks."""

import re
import socket
from pathlib import Path

import pytest

from page_rig import blocks, run

PAGE = "routing-and-fallback.md"

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_the_how_to_of_routing_works_from_top_to_bottom(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    (tmp_path / "routes.yaml").write_text(blocks(PAGE, "yaml")[1])
    up, split, crowd, kill = (block.replace("8420", port) for block in blocks(PAGE, "sh"))
    up = "trap 'pilothouse down >/dev/null 2>&1 || true' EXIT\n" + up.replace("up ", f"up --port {port} ")
    script = "echo ---\n".join([up, split, crowd, kill])

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
