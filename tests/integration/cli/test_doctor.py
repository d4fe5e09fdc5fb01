"""`doctor` as a whole: its exit status, and what it says of a home."""

import json
import subprocess
import sys
from pathlib import Path

CODE = "import sys; from pilothouse.cli.main import main; main(sys.argv[1:])"


def doctor(home: Path) -> tuple[int, dict]:
    argv = [sys.executable, "-c", CODE, "doctor", "--home", str(home), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


def test_a_home_to_be_made_has_no_failure_of_its_own(tmp_path: Path) -> None:
    _, report = doctor(tmp_path / "home")

    found = {one["check"]: one["status"] for one in report["findings"]}
    assert {found[name] for name in ("home", "keys", "leftovers", "server", "clock")} == {"ok"}


def test_an_open_keys_folder_fails_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "home-keys").mkdir(mode=0o755)
    (tmp_path / "home-keys").chmod(0o755)

    status, report = doctor(tmp_path / "home")

    assert (status, report["status"]) == (1, "fail")
    assert f"chmod 700 {tmp_path / 'home-keys'}" in [one["fix"] for one in report["findings"]]
