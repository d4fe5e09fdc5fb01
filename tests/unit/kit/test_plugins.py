import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.kit.plugins import BrokenPlugin, Plugins

GROUP = "pilothouse.test"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with a part that works, one that does not, and one that has the name of ours."""
    info = tmp_path / "ship_parts-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ship-parts\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\nmast = ship_parts:Mast\nhole = ship_parts:Hole\nkeel = ship_parts:Mast\n"
    )
    (tmp_path / "ship_parts.py").write_text("class Mast:\n    name = 'mast'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("ship_parts", None)


def parts() -> Plugins[object]:
    return Plugins(GROUP, {"keel": "collections:OrderedDict"}, lambda part: part())


def test_our_own_are_found_without_being_installed() -> None:
    assert list(parts()) == ["keel"]
    assert type(parts()["keel"]).__name__ == "OrderedDict"


@pytest.mark.usefixtures("installed")
def test_other_peoples_are_found_by_their_entry_points() -> None:
    found = parts()

    assert list(found) == ["keel", "hole", "mast"]
    assert type(found["mast"]).__name__ == "Mast"
    assert found["mast"] is found["mast"]


@pytest.mark.usefixtures("installed")
def test_nobody_takes_the_name_of_ours() -> None:
    assert type(parts()["keel"]).__name__ == "OrderedDict"


@pytest.mark.usefixtures("installed")
def test_a_broken_one_breaks_itself_alone_and_says_why() -> None:
    found = parts()

    with pytest.raises(BrokenPlugin, match=r"^hole \(ship_parts:Hole\) cannot be used: AttributeError"):
        found["hole"]
    assert found.get("hole") is None
    assert found["mast"]


def test_an_unknown_name_is_no_part() -> None:
    assert "sail" not in parts()
    with pytest.raises(KeyError):
        parts()["sail"]
