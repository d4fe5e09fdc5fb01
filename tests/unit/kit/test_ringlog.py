import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit import ringlog
from pilothouse.kit.ringlog import RingLog, tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


@pytest.fixture
def fd(log: Path) -> Iterator[int]:
    """A descriptor that stands in for standard output."""
    opened = os.open(os.devnull, os.O_WRONLY)
    yield opened
    os.close(opened)


def test_what_is_written_is_in_the_file_at_once(log: Path, fd: int) -> None:
    RingLog(log, fds=(fd,)).attach()

    os.write(fd, b"one\ntwo\n")

    assert tail(log, 5) == ["one", "two"]
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_full_file_is_moved_aside_and_nothing_is_lost(log: Path, fd: int) -> None:
    ring = RingLog(log, fds=(fd,), max_bytes=10)
    ring.attach()
    os.write(fd, b"first line\n")

    assert ring.rotate_when_large()
    os.write(fd, b"second\n")

    assert ringlog.older_part(log).read_bytes() == b"first line\n"
    assert log.read_bytes() == b"second\n"
    assert tail(log, 5) == ["first line", "second"]


def test_a_file_with_room_is_left_alone(log: Path, fd: int) -> None:
    ring = RingLog(log, fds=(fd,), max_bytes=100)
    ring.attach()
    os.write(fd, b"short\n")

    assert not ring.rotate_when_large()


def test_two_files_bound_the_space(log: Path, fd: int) -> None:
    ring = RingLog(log, fds=(fd,), max_bytes=50)
    ring.attach()

    for i in range(100):
        os.write(fd, b"line %03d\n" % i)
        ring.rotate_when_large()

    sizes = [path.stat().st_size for path in log.parent.iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) < 2 * (50 + 9)
    assert tail(log, 3) == ["line 097", "line 098", "line 099"]


def test_a_rotation_cut_in_the_middle_is_gone_on_with(log: Path, fd: int) -> None:
    ring = RingLog(log, fds=(fd,), max_bytes=5)
    ring.attach()
    os.write(fd, b"before\n")
    log.replace(ringlog.older_part(log))  # and here it died: no new file was made

    assert tail(log, 5) == ["before"]
    assert ring.rotate_when_large()
    os.write(fd, b"after\n")
    assert tail(log, 5) == ["before", "after"]


def test_a_folder_that_is_gone_does_not_end_the_writer(log: Path, fd: int) -> None:
    ring = RingLog(log, fds=(fd,), max_bytes=5)
    ring.attach()
    os.write(fd, b"long enough\n")
    log.unlink()
    log.parent.rmdir()

    assert not ring.rotate_when_large()


def test_a_rotation_while_reading_shows_no_line_twice(log: Path) -> None:
    log.write_bytes(b"one\n")
    os.link(log, ringlog.older_part(log))  # as if it was moved between the two opens

    assert tail(log, 5) == ["one"]


def test_watching_rotates_until_told_to_stop(log: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringlog, "LOOK_S", 0.001)
    ring = RingLog(log, fds=(fd,), max_bytes=5)
    ring.attach()
    os.write(fd, b"long enough\n")
    stop = threading.Event()
    watcher = threading.Thread(target=ring.watch, args=(stop,))

    watcher.start()
    while not ringlog.older_part(log).exists():
        pass
    stop.set()
    watcher.join(5)

    assert not watcher.is_alive()


def test_there_is_no_log_of_nothing(log: Path) -> None:
    assert tail(log, 5) == []


def test_no_lines_are_no_lines(log: Path) -> None:
    log.write_bytes(b"one\n")

    assert tail(log, 0) == []


def test_a_log_cannot_command_a_terminal(log: Path) -> None:
    log.write_bytes(b"a\x1b[2Jb\x07\tc\xff\r\n")

    assert tail(log, 1) == ["a\ufffd[2Jb\ufffd\tc\ufffd"]


def test_an_endless_line_is_cut(log: Path) -> None:
    log.write_bytes(b"x" * 100_000)

    assert tail(log, 1) == ["x" * ringlog.MAX_LINE_CHARS]


def test_only_the_end_of_a_large_log_is_read(log: Path) -> None:
    log.write_bytes(b"old\n" * 1000 + b"new\n")

    assert tail(log, 10_000, max_bytes=12) == ["old", "old", "new"]


def test_both_files_are_removed(log: Path) -> None:
    log.write_bytes(b"a")
    ringlog.older_part(log).write_bytes(b"b")

    ringlog.remove(log)

    assert list(log.parent.iterdir()) == []


def test_a_captured_process_that_is_killed_leaves_its_last_words(log: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from pilothouse.kit.ringlog import capture;"
        f"capture(Path({str(log)!r})); os.write(2, b'last words\\n'); os.kill(os.getpid(), signal.SIGKILL)"
    )

    subprocess.run([sys.executable, "-c", program], check=False, timeout=20)

    assert tail(log, 5) == ["last words"]


@settings(deadline=None, max_examples=50)
@given(
    lines=st.lists(st.text("abcdefgh \u00e4\u20ac", max_size=30), max_size=60), max_bytes=st.integers(1, 200)
)
def test_the_newest_lines_are_always_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], max_bytes: int
) -> None:
    log = tmp_path_factory.mktemp("ring") / "a.log"
    fd = os.open(os.devnull, os.O_WRONLY)
    ring = RingLog(log, fds=(fd,), max_bytes=max_bytes)
    ring.attach()
    for line in lines:
        os.write(fd, line.encode() + b"\n")
        ring.rotate_when_large()
    os.close(fd)

    found = tail(log, len(lines))

    assert found == (lines[-len(found) :] if found else [])
    if lines and len(lines[-1].encode()) + 1 < max_bytes:
        assert found
