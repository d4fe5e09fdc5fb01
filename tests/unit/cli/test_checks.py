"""The checks of `doctor`, each on a healthy case and on the faults that it is for."""

import os
import socket
from pathlib import Path

import pytest

from pilothouse.app.home import Pids, ServerState
from pilothouse.cli import checks
from pilothouse.cli.checks import GB, Finding
from pilothouse.cli.checks_python import known_bad, packages, pth_files, python_version
from pilothouse.config import make_settings

RUNNING = ServerState(url="http://127.0.0.1:8420", version="0", started_at=1.0, pids=Pids(supervisor=1))


def statuses(findings: list[Finding]) -> list[str]:
    return [one.status for one in findings]


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (checks.processor(["sse2", "avx2"], 2, "x86_64"), "ok"),
        (checks.processor(["sse2"], 2, "x86_64"), "fail"),
        (checks.processor(None, 8, "arm64"), "ok"),
        (checks.memory(8 * GB, 16 * GB), "ok"),
        (checks.memory(GB, 16 * GB), "warn"),
        (checks.memory(GB // 4, 16 * GB), "fail"),
        (checks.c_library("glibc", "2.36", "Linux"), "ok"),
        (checks.c_library("", "", "Linux"), "fail"),
        (checks.c_library("", "", "Darwin"), "ok"),
        (checks.clock(1.8e9, 1.8e9 - 5), "ok"),
        (checks.clock(1.8e9, 1.8e9 + 3600), "warn"),
        (checks.clock(1.0, 0.0), "fail"),
        (checks.open_files(65_536), "ok"),
        (checks.open_files(-1), "ok"),
        (checks.open_files(256), "warn"),
        (checks.readiness(200, {"status": "ready", "reasons": []}), "ok"),
        (checks.readiness(200, {"reasons": ["controller gone"]}), "warn"),
        (checks.readiness(503, {"reasons": ["no replica"]}), "fail"),
        (checks.readiness(0, None), "fail"),
        (python_version((3, 11), "3.11.7"), "ok"),
        (python_version((3, 10), "3.10.1"), "fail"),
    ],
)
def test_a_finding_has_the_status_of_its_facts(finding: Finding, status: str) -> None:
    assert finding.status == status
    assert finding.fix or status == "ok"


def test_a_folder_that_others_can_enter_fails_with_the_command_that_closes_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    finding = checks.private_folder("keys", tmp_path)

    assert (finding.status, finding.fix) == ("fail", f"chmod 700 {tmp_path}")


def test_a_private_folder_and_one_to_be_made_are_fine(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    assert checks.private_folder("home", tmp_path).status == "ok"
    assert checks.private_folder("home", tmp_path / "later").status == "ok"


def test_a_key_file_that_others_can_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("x")
    (tmp_path / "admin.key").chmod(0o640)
    (tmp_path / "kek").write_text("x")
    (tmp_path / "kek").chmod(0o600)

    assert [one.fix for one in checks.key_files(tmp_path)] == [f"chmod 600 {tmp_path / 'admin.key'}"]


def test_a_taken_port_is_a_warning_and_our_own_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

        assert checks.port("127.0.0.1", number, None).status == "warn"
        assert checks.port("127.0.0.1", number, RUNNING).status == "ok"

    assert checks.port("127.0.0.1", number, None).status == "ok"


def test_the_disk_is_measured_where_the_home_will_be(tmp_path: Path) -> None:
    assert checks.disk(tmp_path / "not" / "yet").status in ("ok", "warn")


def test_the_state_file_of_a_killed_server_is_told(tmp_path: Path) -> None:
    settings = make_settings(home=str(tmp_path))
    settings.state_file.write_text('{"url":"u","version":"0","started_at":1,"pids":{"supervisor":1}}')

    assert "killed" in checks.leftovers(settings)[0].what


def test_packages_are_compared_by_number_and_extras_passed_over() -> None:
    wanted = ["uvloop>=0.23", "xllamacpp==2026.10.11549", "pytest>=9; extra == 'dev'", "gone>=1"]

    found = packages(wanted, {"uvloop": "0.9", "xllamacpp": "2026.11.1"})

    assert [(one.status, one.what.split()[0]) for one in found] == [
        ("fail", "uvloop"),
        ("warn", "xllamacpp"),
        ("fail", "gone"),
    ]
    assert statuses(packages(["uvloop>=0.23"], {"uvloop": "0.23.1"})) == ["ok"]


def test_a_version_that_is_known_to_be_bad_is_told_with_the_reason() -> None:
    found = known_bad({"litellm": "1.82.7", "uvloop": "0.23"})

    assert statuses(found) == ["fail"]
    assert "credentials" in found[0].what
    assert statuses(known_bad({"litellm": "1.82.9"})) == ["ok"]


@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        ("distutils-precedence.pth", "import os; __import__('_distutils_hack')", "ok"),
        ("distutils-precedence.pth", "import os; exec('_distutils_hack' + 500 * 'x')" + 500 * " ", "warn"),
        ("_virtualenv.pth", "import _virtualenv", "ok"),
        ("__editable__.pilothouse-0.1.0.pth", "/src", "ok"),
        ("_editable_impl_pilothouse.pth", "/src", "ok"),
        ("helper.pth", "import base64; exec(...)", "warn"),
        ("other.pth", "/somewhere", "warn"),
        ("_editable_impl_pilothouse.pth", "import os; exec(...)", "warn"),
        ("pilothouse_init.pth", "/src", "warn"),
        ("litellm_init.pth", "import os", "fail"),
    ],
)
def test_each_unknown_pth_file_is_named(tmp_path: Path, name: str, text: str, status: str) -> None:
    (tmp_path / name).write_text(text)

    found = pth_files([tmp_path])

    assert statuses(found) == [status]
    assert status == "ok" or name in found[0].what


def test_the_processors_counted_are_those_that_may_be_used() -> None:
    assert 1 <= checks.usable_cpus() <= (os.cpu_count() or 1)
