"""Logs of children, exit statuses, and which processes are ours."""

import os
import signal
from pathlib import Path
from random import Random

import pytest

from pilothouse.app.leftovers import is_same_process, role_of
from pilothouse.app.processes import Child, describe_exit, trim_log

RUN = Path("/home/x/run")


@pytest.mark.parametrize(
    ("code", "text"), [(1, "exit status 1"), (-9, "killed by SIGKILL"), (-200, "killed by signal 200")]
)
def test_an_exit_is_told_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text


def test_a_log_is_bounded_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        trim_log(log, max_bytes=40)
        writer.write(b"new\n")

    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "worker-0.log.1").read_bytes() == b"old\n" * 10


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("line\n")

    trim_log(log, max_bytes=5)

    assert log.read_text() == "line\n"
    assert not (tmp_path / "a.log.1").exists()


def test_restarts_come_soon_at_first_and_then_back_off(tmp_path: Path) -> None:
    child = Child("worker-0", (), log=tmp_path / "x")
    random = Random(1)

    waits = [child.delay_start(100.0, random, status="exit status 1").retry_in_s for _ in range(12)]

    assert waits[0] <= 0.2
    assert waits[4] > 1.0
    assert max(waits) <= 30.0


def test_whoever_is_killed_from_outside_is_not_kept_waiting(tmp_path: Path) -> None:
    child = Child("worker-0", (), log=tmp_path / "x")

    for _ in range(12):
        death = child.delay_start(100.0, Random(1), status="killed by SIGKILL", from_outside=True)

    assert death.retry_in_s <= 1.0


@pytest.mark.parametrize(
    ("cmdline", "role"),
    [
        (["python", "-m", "pilothouse.app.worker", "--settings", "/home/x/run/settings.json"], "worker"),
        (
            ["python", "-m", "pilothouse.app.controller", "--settings", "/home/x/run/settings.json"],
            "controller",
        ),
        (["python", "-m", "pilothouse.adapters.engines.x", "/home/x/run/e/config.json"], "engine"),
        (["python", "-m", "pilothouse.app.worker", "--settings", "/home/y/run/settings.json"], None),
        (["tail", "-f", "/home/x/run/settings.json"], None),
        (["python", "-m", "pilothouse.app.worker", "--settings", "/home/x/running/settings.json"], None),
    ],
)
def test_a_process_is_ours_by_the_run_folder_in_its_command_line(
    cmdline: list[str], role: str | None
) -> None:
    assert role_of(cmdline, RUN) == role


def test_a_pid_that_was_given_anew_is_another_process() -> None:
    assert is_same_process(os.getpid(), 4e9)
    assert not is_same_process(os.getpid(), 1000.0)


def test_a_signal_to_a_dead_child_goes_nowhere(tmp_path: Path) -> None:
    child = Child("worker-0", (), log=tmp_path / "x")

    child.signal(signal.SIGKILL)

    assert child.has_ended()
