"""
Every direct dependency is explained, and every dependency is locked.

The page is for the person who must approve them; the locks are for the machine.
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "dependencies.md"
LOCKS = [ROOT / "requirements" / name for name in ("runtime.txt", "dev.txt")]


def declared() -> tuple[list[Requirement], list[Requirement], list[Requirement]]:
    """At run time, in extras, and for development alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = dict(project["optional-dependencies"])
    dev = [Requirement(text) for text in extras.pop("dev")]
    optional = [Requirement(text) for extra in extras.values() for text in extra]
    names = {requirement.name for requirement in optional}
    return (
        [Requirement(text) for text in project["dependencies"]],
        optional,
        [requirement for requirement in dev if requirement.name not in names],
    )


def rows(section: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by the package's name."""
    text = PAGE.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    return {canonicalize_name(row[0].strip("`")): row[1:] for row in cells}


def pins(lock: Path) -> dict[str, list[tuple[str, str, int]]]:
    """By name: version, marker and number of hashes of each pin, for a Python may want its own."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for entry in lock.read_text().replace("\\\n", " ").splitlines():
        requirement = Requirement(entry.split("--hash")[0].strip())
        version = str(requirement.specifier).removeprefix("==")
        pin = (version, str(requirement.marker or ""), entry.count("--hash=sha256:"))
        found.setdefault(canonicalize_name(requirement.name), []).append(pin)
    return found


@pytest.mark.parametrize(("section", "which"), [("At run time", 0), ("Optional", 1), ("For development", 2)])
def test_the_page_explains_exactly_the_direct_dependencies(section: str, which: int):
    names = {canonicalize_name(requirement.name) for requirement in declared()[which]}

    assert rows(section).keys() == names


@pytest.mark.parametrize("section", ["At run time", "Optional", "For development"])
def test_no_cell_of_the_page_is_empty(section: str):
    assert all(all(cells) for cells in rows(section).values())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_pin_is_exact_and_has_hashes(lock: Path):
    for name, versions in pins(lock).items():
        for version, _, hashes in versions:
            assert re.fullmatch(r"[\w.+!]+", version), name
            assert hashes, f"{name} has no hash"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_no_host_and_no_path(lock: Path):
    assert not re.search(r"://|^-|@ |find-links|index", lock.read_text(), flags=re.MULTILINE)


def test_the_locks_satisfy_what_is_declared():
    runtime, optional, dev = declared()

    for lock, requirements in ((LOCKS[0], runtime), (LOCKS[1], runtime + optional + dev)):
        locked = pins(lock)
        for requirement in requirements:
            versions = locked.get(canonicalize_name(requirement.name), [])
            assert versions, f"{requirement.name} is not in {lock.name}: make lock"
            assert all(requirement.specifier.contains(version) for version, _, _ in versions), (
                f"{requirement}: make lock"
            )


def test_development_runs_on_the_versions_of_production():
    runtime, dev = map(pins, LOCKS)

    assert {name: dev.get(name) for name in runtime} == runtime


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_each_package_has_one_version_for_a_given_machine(lock: Path):
    for name, versions in pins(lock).items():
        here = [version for version, marker, _ in versions if not marker or Marker(marker).evaluate()]
        assert len(here) <= 1, f"{name}: {here}"
