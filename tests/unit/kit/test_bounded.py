"""What a bounded child may do to its parent: nothing."""

import pytest

from pilothouse.kit import bounded
from pilothouse.kit.bounded import REFUSED_STATUS, ChildFailed, run_module


def child(statement: str, *, timeout_s: float = 30) -> bytes:
    """Run a statement in a child, with the standard library's own module that runs statements."""
    return run_module("timeit", "-n", "1", "-r", "1", statement, timeout_s=timeout_s)


def limited(statement: str) -> bytes:
    limits = "limit_self(memory_bytes=400 << 20, cpu_s=20, file_bytes=1000)"
    return child(f"from pilothouse.kit.bounded import limit_self; {limits}; {statement}")


def test_what_it_prints_comes_back() -> None:
    assert b"hello" in child("print('hello')")


def test_it_has_no_environment_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_API_KEY", "ph_secret")

    out = child("import os, sys; print('PILOTHOUSE_API_KEY' in os.environ, repr(sys.stdin.read()))")

    assert b"False ''" in out


def test_a_crash_is_told_by_its_signal() -> None:
    with pytest.raises(ChildFailed, match="signal 6") as caught:
        child("import os; os.abort()")

    assert not caught.value.refused


def test_an_error_is_told_by_its_last_line() -> None:
    with pytest.raises(ChildFailed, match="status 1: ZeroDivisionError"):
        child("1/0")


def test_a_refusal_is_told_in_the_childs_words() -> None:
    with pytest.raises(ChildFailed, match=r"^it lies$") as caught:
        child(
            f"import os, sys; sys.stderr.write('it lies\\n'); sys.stderr.flush(); os._exit({REFUSED_STATUS})"
        )

    assert caught.value.refused


def test_a_child_that_hangs_is_ended() -> None:
    with pytest.raises(ChildFailed, match=r"not done after 0\.3 s"):
        child("import time; time.sleep(60)", timeout_s=0.3)


def test_a_child_that_swells_is_ended() -> None:
    with pytest.raises(ChildFailed, match="more memory than it may have"):
        limited("bytearray(1 << 30)")


def test_a_child_that_writes_more_than_it_may_is_ended(tmp_path: object) -> None:
    with pytest.raises(ChildFailed, match="File too large"):
        limited(f"f = open('{tmp_path}/a', 'wb'); f.write(bytes(5000)); f.close()")


def test_a_child_that_floods_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MAX_OUTPUT_BYTES", 10)

    with pytest.raises(ChildFailed, match="more than 10 bytes"):
        child("print('x' * 100)")
