"""
The layers of `pyproject.toml` hold, and each contract can be broken.

The second half plants a fault for every contract in a copy of the package: a
misspelt module name would make a contract that keeps itself.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTED = {
    "Layers: imports point down only": ("kit/planted.py", "from pilothouse.domain import errors"),
    "Adapters are blind to each other": (
        "adapters/blobs/planted.py",
        "from pilothouse.adapters.feeds import unix",
    ),
    "HTTP routes never name an adapter": ("http/planted.py", "from pilothouse.adapters.feeds import unix"),
    "The domain is pure": ("domain/planted.py", "import subprocess"),
    "The data plane stays thin": ("gateway/planted.py", "import sqlalchemy"),
}


def test_imports_point_down_only():
    done = lint(ROOT / "src")

    assert done.returncode == 0, done.stdout


def test_every_contract_can_be_broken(tmp_path: Path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in PLANTED.values():
        (tmp_path / "src" / "pilothouse" / name).write_text(f'"""Planted."""\n\n{text}\n')

    broken = lint(tmp_path / "src").stdout

    kept = [name for name in PLANTED if status(name, broken) != "BROKEN"]
    assert not kept, broken


@pytest.mark.parametrize(
    ("planted", "text"),
    [
        ("adapters/engines/planted.py", "from pilothouse.adapters.engines import llama_cpp"),
        ("adapters/engines/_planted.py", "from pilothouse.adapters.engines.openai import OpenAIDriver"),
        ("adapters/engines/planted.py", "from pilothouse.adapters.stores import _tables"),
    ],
)
def test_members_of_a_family_share_its_own_underscore_modules_alone(tmp_path: Path, planted: str, text: str):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src" / "pilothouse" / planted).write_text(f'"""Planted."""\n\n{text}\n')

    assert status("Adapters are blind to each other", lint(tmp_path / "src").stdout) == "BROKEN"


def status(contract: str, report: str) -> str:
    """The first verdict after the contract's name, which the report may have wrapped."""
    found = re.search(re.escape(contract) + r".*?\b(KEPT|BROKEN)\b", report, flags=re.DOTALL)
    return found[1] if found else "absent"


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r}); from importlinter.cli import lint_imports_command"
    )
    command = [sys.executable, "-c", f"{program}; lint_imports_command()", "--no-cache"]
    config = ["--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(
        [*command, *config], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
