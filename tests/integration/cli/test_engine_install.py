"""Making an engine's environment, with the real installer and a wheel that has a command."""

import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilothouse.cli.engine_install import install
from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.lockfile import file_lock
from pilothouse.ports.engine import Environment

pytestmark = pytest.mark.slow


def wheel(folder: Path, version: str) -> str:
    path = folder / f"tiny_engine-{version}-py3-none-any.whl"
    about = f"tiny_engine-{version}.dist-info"
    files = {
        "tiny_engine.py": f"def main():\n    print('engine {version}')\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: tiny-engine\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": "[console_scripts]\ntiny-engine = tiny_engine:main\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return str(path)


def environment(tmp_path: Path, package: str) -> Environment:
    constraints = tmp_path / "constraints.txt"
    constraints.touch()
    return Environment(
        folder=str(tmp_path / "engines" / "tiny"), packages=(package,), constraints=str(constraints)
    )


def said(tmp_path: Path) -> str:
    """By the command that the package brings, whose first line names its Python."""
    command = str(tmp_path / "engines" / "tiny" / "bin" / "tiny-engine")
    return subprocess.run([command], check=True, capture_output=True, text=True, timeout=60).stdout


def test_its_commands_run_and_a_new_one_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    before = tmp_path / "engines" / "tiny" / "bin"  # a folder, as earlier versions made it
    before.mkdir(parents=True)

    install(environment(tmp_path, wheel(tmp_path, "1.0")))
    assert said(tmp_path) == "engine 1.0\n"
    with pytest.raises(OperationFailed, match="ended with status"):
        install(environment(tmp_path, str(tmp_path / "nothing.whl")))
    assert said(tmp_path) == "engine 1.0\n"
    install(environment(tmp_path, wheel(tmp_path, "2.0")))

    assert said(tmp_path) == "engine 2.0\n"
    made = sorted((tmp_path / "engines").glob("[!.]*"))
    assert len(made) == 2
    assert made[0].is_symlink()
    assert made[0].resolve() == made[1]


def test_one_process_at_a_time_makes_it_and_the_other_is_told(tmp_path: Path) -> None:
    lock = tmp_path / "engines" / ".tiny.lock"
    lock.parent.mkdir()
    wanted = environment(tmp_path, wheel(tmp_path, "1.0"))
    half = tmp_path / "engines" / "tiny.half"
    half.mkdir()

    with file_lock(lock, timeout_s=1.0), pytest.raises(OperationFailed, match="another process makes"):
        install(wanted, busy_s=0.1)
    assert half.is_dir()  # of the process that makes it
    install(wanted)

    assert said(tmp_path) == "engine 1.0\n"
    assert not half.exists()


def test_two_at_once_leave_one_that_is_whole(tmp_path: Path) -> None:
    wanted = environment(tmp_path, wheel(tmp_path, "1.0"))
    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(install, wanted, busy_s=300.0) for _ in range(2)]:
            done.result()

    assert said(tmp_path) == "engine 1.0\n"
    assert len(list((tmp_path / "engines").glob("[!.]*"))) == 2
