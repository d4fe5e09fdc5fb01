import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.kit import processes
from pilothouse.kit.processes import Identity

PATIENCE_S = 10.0


class Nursery:
    """Starts small Python programs; whatever is left at the end is ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self._born: list[Identity] = []

    def spawn(self, code: str, *words: str, env: dict[str, str] | None = None) -> Identity:
        argv = [sys.executable, "-I", "-S", "-c", f"import os, signal, sys, time; {code}", *words]
        identity = processes.spawn(argv, env=env or {}, cwd=self.folder, output=self.output)
        self._born.append(identity)
        return identity

    def said(self, text: str) -> str:
        """Wait until it said this, and return all that was said."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in (said := self.output.read_text()):
            assert time.monotonic() < deadline, said
            time.sleep(0.002)
        return said

    def end(self) -> None:
        for identity in self._born:
            processes.kill_group(identity)
            wait_for_end(identity)


def wait_for_end(identity: Identity) -> int | None:
    """Its exit status, when it was not taken before."""
    deadline = time.monotonic() + PATIENCE_S
    while processes.is_alive(identity):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return processes.reap(identity.pid)


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    nursery.end()


def test_a_spawned_process_stands_alone(nursery: Nursery) -> None:
    nursery.spawn(
        "mask = os.umask(0); open_files = len(os.listdir('/dev/fd'));"
        "print(os.getsid(0) == os.getpgid(0) == os.getpid(), oct(mask), sys.stdin.read() == '', open_files);"
        "print(os.getcwd()); print(*sorted(os.environ)); print('done', flush=True)",
        env={"ONLY": "this"},
    )

    alone, folder, names = nursery.said("done").splitlines()[:3]

    assert alone == "True 0o77 True 4"  # its three files, and the one that reads the folder
    assert folder == str(nursery.folder)
    assert set(names.split()) <= {"ONLY", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}  # Python sets its own


def test_its_output_is_appended_and_private(nursery: Nursery) -> None:
    nursery.output.write_text("before\n")
    nursery.output.chmod(0o600)

    nursery.spawn("print('after', flush=True)")

    assert nursery.said("after") == "before\nafter\n"


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        processes.spawn(["/no/such/program"], env={}, cwd=tmp_path, output=tmp_path / "output")


def test_a_living_process_is_who_it_is(nursery: Nursery) -> None:
    child = nursery.spawn("signal.pause()")

    assert processes.identify(child.pid) == child
    assert processes.is_alive(child)
    assert abs(processes.started_at(child) - time.time()) < 60
    assert processes.resident_bytes(child) > 0
    assert processes.leads_group(child)


def test_the_same_number_with_another_birth_is_somebody_else(nursery: Nursery) -> None:
    child = nursery.spawn("signal.pause()")
    earlier = Identity(child.pid, "another boot:1")

    processes.terminate(earlier)
    processes.kill_group(earlier)

    assert not processes.is_alive(earlier)
    assert processes.group_members(earlier) == []
    assert processes.is_alive(child)


def test_a_zombie_is_dead(nursery: Nursery) -> None:
    child = nursery.spawn("signal.pause()")

    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while processes.is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.002)

    os.kill(child.pid, 0)  # its number is still taken: nobody asked for its status
    assert processes.identify(child.pid) is None
    assert processes.group_members(child) == []
    assert processes.resident_bytes(child) == 0


def test_a_process_with_threads_has_a_status_as_soon_as_it_is_dead(nursery: Nursery) -> None:
    """Its first thread is a zombie before the others are gone."""
    for _ in range(20):
        child = nursery.spawn(
            "import threading; kept = bytearray(1 << 24);"
            "[threading.Thread(target=signal.pause).start() for _ in range(40)]; print('up', flush=True)"
        )
        nursery.said("up")
        nursery.output.unlink()
        os.kill(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while processes.is_alive(child):
            assert time.monotonic() < deadline

        assert processes.reap(child.pid) == -signal.SIGKILL


def test_a_process_whose_first_thread_ended_lives_on(nursery: Nursery) -> None:
    child = nursery.spawn(
        "import ctypes, threading; threading.Thread(target=time.sleep, args=(60,)).start();"
        "print('up', flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    nursery.said("up")
    time.sleep(0.05)

    assert processes.is_alive(child)
    assert processes.group_members(child) == [child]
    assert processes.reap(child.pid) is None


def test_an_exit_status_is_told_once(nursery: Nursery) -> None:
    child = nursery.spawn("sys.exit(7)")

    assert wait_for_end(child) == 7
    assert processes.reap(child.pid) is None


def test_a_running_child_has_no_exit_status(nursery: Nursery) -> None:
    child = nursery.spawn("signal.pause()")

    assert processes.reap(child.pid) is None


def test_a_stranger_has_no_exit_status_for_us() -> None:
    assert processes.reap(1) is None


def test_terminate_asks_the_one_process(nursery: Nursery) -> None:
    child = nursery.spawn("print('up', flush=True); signal.pause()")
    nursery.said("up")

    processes.terminate(child)

    assert wait_for_end(child) == -signal.SIGTERM


def test_terminate_works_where_the_kernel_has_no_pidfd(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    child = nursery.spawn("signal.pause()")

    processes.terminate(child)

    assert wait_for_end(child) == -signal.SIGTERM


def test_terminating_the_dead_does_nothing(nursery: Nursery) -> None:
    child = nursery.spawn("pass")
    wait_for_end(child)

    processes.terminate(child)
    processes.kill_group(child)


def test_the_whole_group_is_killed_even_when_its_leader_is_gone(nursery: Nursery) -> None:
    leader = nursery.spawn(
        "pid = os.fork();\n"
        "if pid == 0:\n"
        "    signal.signal(15, signal.SIG_IGN); print('helper', os.getpid(), flush=True); time.sleep(60)\n"
    )
    helper = int(nursery.said("helper ").split()[1])
    assert wait_for_end(leader) == 0

    assert [one.pid for one in processes.group_members(leader)] == [helper]
    processes.kill_group(leader)

    deadline = time.monotonic() + PATIENCE_S
    while processes.group_members(leader):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_process_that_leads_no_group_is_killed_alone(nursery: Nursery) -> None:
    leader = nursery.spawn("pid = os.fork(); print('up', os.getpid(), flush=True); signal.pause()")
    nursery.said("up")
    deadline = time.monotonic() + PATIENCE_S
    while len(members := processes.group_members(leader)) < 2:
        assert time.monotonic() < deadline
    (helper,) = [one for one in members if one != leader]

    processes.kill_group(helper)

    while processes.is_alive(helper):
        assert time.monotonic() < deadline
    assert processes.is_alive(leader)


def test_a_process_is_found_by_words_of_its_command_line(nursery: Nursery) -> None:
    child = nursery.spawn("signal.pause()", "--replica", "m-1-0", "--home-id", "abc123")

    assert processes.find(["--replica", "m-1-0", "--home-id", "abc123"]) == [child]
    assert processes.find(["--home-id", "abc123"]) == [child]
    assert processes.find(["m-1-0", "abc123"]) == []
    assert processes.find(["--replica", "m-1"]) == []


@pytest.mark.parametrize("pid", [0, -1, 2**30])
def test_a_number_that_nobody_has_is_nobody(pid: int) -> None:
    assert processes.identify(pid) is None
    assert processes.started_at(Identity(pid, "x")) == 0.0 if pid > 0 else True


def test_a_name_that_looks_like_process_facts_does_not_mislead(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 1"
    odd.symlink_to("/bin/sleep")
    identity = processes.spawn([str(odd), "30"], env={}, cwd=tmp_path, output=tmp_path / "output")

    try:
        assert processes.is_alive(identity)
    finally:
        processes.kill_group(identity)
        wait_for_end(identity)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this score")
def test_the_kernel_is_told_to_end_it_before_us(nursery: Nursery) -> None:
    child = nursery.spawn("signal.pause()")

    assert int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) == 500


def test_facts_come_from_psutil_on_other_systems(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    child = nursery.spawn("signal.pause()")

    assert processes.is_alive(child)
    assert processes.find(["-I", "-S"])
    os.kill(child.pid, signal.SIGKILL)
    assert wait_for_end(child) == -signal.SIGKILL
    assert processes.identify(child.pid) is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "it ended with status 0"),
        (3, "it ended with status 3"),
        (-11, "it was ended by signal 11 (SIGSEGV)"),
        (-9, "it was ended by signal 9 (SIGKILL); the system does that when memory runs out"),
        (-63, "it was ended by signal 63"),
    ],
)
def test_exit_statuses_are_said_in_words(status: int, words: str) -> None:
    assert processes.describe_exit(status).startswith(words)
