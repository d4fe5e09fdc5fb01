"""The compiled request path passes the tests of the interpreted one, and only its own sources get it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUBSET = (
    "integration/gateway/test_requests.py",
    "integration/gateway/test_streams.py",
    "integration/gateway/test_faults.py",
    "integration/gateway/test_limits.py",
    "integration/gateway/test_cache.py",
    "integration/gateway/test_shared_generations.py",
    "integration/gateway/test_pass_through.py",
    "integration/http1",
    "unit/kit/http1",
    "unit/kit/test_journal.py",
    "unit/kit/test_cohort.py",
    "unit/domain/test_ledger.py",
    "unit/gateway/test_permit.py",
    "unit/gateway/test_leases_under_faults.py",
)
NOT_COMPILED = "not before_the_last_byte"
"""It watches a method of one connection, and compiled callers do not look whether another was put there."""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled in a hurry: what it does is the same at every level of optimization."""
    folder = tmp_path_factory.mktemp("compiled") / "build"
    done = _run(["tools/fast.py", "--into", str(folder), "--optimize", "0"], {})
    assert done.returncode == 0, done.stdout
    if not folder.exists():
        pytest.skip(done.stdout.strip())
    return folder


def test_the_compiled_request_path_passes_the_tests_of_the_interpreted_one(build: Path) -> None:
    paths = [str(ROOT / "tests" / name) for name in SUBSET]
    plugin = {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    done = _run(
        ["-m", "pytest", "-q", "-x", "-p", "compiled_path", "-k", NOT_COMPILED, *paths],
        {**plugin, "COMPILED_PATH": str(build)},
    )

    assert done.returncode == 0, done.stdout[-4000:]


def _run(argv: list[str], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        cwd=ROOT,
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
