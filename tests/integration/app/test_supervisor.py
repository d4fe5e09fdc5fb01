"""The supervisor with stand-ins for its children, as processes of their own."""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from pilothouse.app.leftovers import processes_of
from pilothouse.config import make_settings

UP = Path(__file__).parents[1] / "standins" / "pilothouse_up.py"
PILOTHOUSE = "import sys; from pilothouse.cli.main import main; main(sys.argv[1:])"


class Bench:
    """A home, and the processes that a test started in it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.started: list[subprocess.Popen[str]] = []
        self.first_path = folder / "first"
        """Where children look for modules before they look into the real package."""

    def up(self, *flags: str, worker: str = "worker", fds: Sequence[int] = ()) -> subprocess.Popen[str]:
        argv = [
            sys.executable,
            str(UP),
            worker,
            "up",
            "--home",
            str(self.home),
            "--port",
            "0",
            "--json",
            *flags,
        ]
        paths = [str(self.first_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, pass_fds=fds
        )
        self.started.append(process)
        return process

    def up_until_ready(self, *flags: str) -> subprocess.Popen[str]:
        process = self.up(*flags)
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "ready":
                return process
        raise AssertionError(process.communicate(timeout=10))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", PILOTHOUSE, *arguments, "--home", str(self.home)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    @property
    def state(self) -> dict:
        return json.loads((self.home / "server.json").read_text())

    def log(self, name: str) -> str:
        return (self.home / "logs" / f"{name}.log").read_text()

    def family(self) -> list[int]:
        return [one.pid for one in processes_of(self.run_folder)]

    @property
    def run_folder(self) -> Path:
        return make_settings(home=str(self.home)).run_path

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate(timeout=10)
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.state["pids"]["supervisor"], signal.SIGKILL)
        wait_for(lambda: not self.family(), what="the children's end")
        shutil.rmtree(self.run_folder, ignore_errors=True)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def wait_for(is_so: Callable[[], bool], *, what: str, within_s: float = 5.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < give_up_at, f"no {what} within {within_s} s"
        time.sleep(0.02)


def test_a_second_up_on_the_same_home_says_where_the_first_runs_and_exits_6(bench: Bench) -> None:
    bench.up_until_ready()

    second = bench.up()
    _, errors = second.communicate(timeout=20)

    assert second.returncode == 6
    assert bench.state["url"] in json.loads(errors)["error"]["message"]


def test_a_killed_worker_is_replaced_while_the_socket_stays_open(bench: Bench) -> None:
    bench.up_until_ready()
    first = bench.state["pids"]["workers"][0]

    os.kill(first, signal.SIGKILL)
    port = int(bench.state["url"].rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = connection.recv(100)

    assert answer.startswith(b"HTTP/1.1 200")
    wait_for(lambda: bench.state["pids"]["workers"] not in ([], [first]), what="second worker")


def test_a_worker_is_back_within_half_a_second(bench: Bench) -> None:
    bench.up_until_ready()
    first = bench.state["pids"]["workers"]

    os.kill(first[0], signal.SIGKILL)

    wait_for(lambda: bench.state["pids"]["workers"] not in ([], first), what="new worker", within_s=0.5)


def test_children_end_by_themselves_when_the_supervisor_is_killed(bench: Bench) -> None:
    process = bench.up_until_ready("--workers", "2")
    wait_for(lambda: len(bench.family()) == 3, what="family of three")

    process.kill()
    process.communicate(timeout=10)

    wait_for(lambda: not bench.family(), what="end of the children")
    assert "heartbeat lost" in bench.log("worker-1")


def test_after_a_killed_supervisor_the_next_up_takes_the_home(bench: Bench) -> None:
    process = bench.up_until_ready()
    process.kill()
    process.communicate(timeout=10)

    second = bench.up_until_ready()

    assert second.poll() is None
    assert bench.state["pids"]["supervisor"] == second.pid


def test_a_signal_ends_workers_then_the_controller_and_leaves_no_state_file(bench: Bench) -> None:
    process = bench.up_until_ready()

    process.terminate()
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in output.splitlines()] == ["stopping", "stopped"]
    assert not bench.family()
    assert not (bench.home / "server.json").exists()
    assert not bench.run_folder.exists()


def test_a_second_signal_does_not_wait_for_a_worker_that_drains(bench: Bench) -> None:
    process = bench.up("--port", "0", worker="stubborn")
    wait_for(lambda: "started" in _text(bench.home / "logs" / "worker-0.log"), what="worker")

    process.terminate()
    time.sleep(0.3)
    still_waiting = process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)

    assert still_waiting
    assert process.returncode == 0
    assert not bench.family()


def test_a_detached_server_is_ready_when_up_returns_and_down_leaves_nothing(bench: Bench) -> None:
    detached = bench.up("--detach")
    output, errors = detached.communicate(timeout=20)
    ready = json.loads(output.splitlines()[-1])
    supervisor = psutil.Process(bench.state["pids"]["supervisor"])

    down = bench.run("down", "--json")

    assert (detached.returncode, errors) == (0, "")
    assert ready["event"] == "ready"
    assert ready["url"].startswith("http://127.0.0.1:")
    assert down.returncode == 0, down.stderr
    assert not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE
    assert not bench.family()


def test_a_detached_server_keeps_nothing_open_of_its_caller(bench: Bench) -> None:
    reading, writing = os.pipe()
    detached = bench.up("--detach", fds=[writing])
    os.close(writing)

    detached.communicate(timeout=20)

    with os.fdopen(reading, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], 10.0)
        assert ready, "the server holds the other end"
        assert pipe.read() == b""
    bench.run("down")


def test_a_detached_server_survives_the_hangup_of_its_terminal(bench: Bench) -> None:
    bench.up("--detach").communicate(timeout=20)
    pid = bench.state["pids"]["supervisor"]

    os.kill(pid, signal.SIGHUP)
    time.sleep(0.3)

    assert psutil.pid_exists(pid)
    assert not bench.state["is_stopping"]
    assert os.getsid(pid) == pid
    bench.run("down")


def test_down_exits_3_when_nothing_runs(bench: Bench) -> None:
    down = bench.run("down")

    assert down.returncode == 3
    assert down.stderr.startswith("error: no server runs in")


def test_down_ends_what_a_killed_supervisor_left(bench: Bench) -> None:
    process = bench.up_until_ready()
    engine = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; time.sleep(60)",
            "pilothouse-engine",
            str(bench.run_folder / "a.sock"),
        ]
    )
    bench.started.append(engine)  # type: ignore[arg-type]
    process.kill()
    process.communicate(timeout=10)

    down = bench.run("down")

    assert down.returncode == 0, down.stderr
    assert "engine" in down.stdout
    assert engine.wait(timeout=10) != 0


def test_a_server_goes_on_when_whoever_read_its_output_has_gone(bench: Bench) -> None:
    process = bench.up_until_ready()
    assert process.stdout is not None
    process.stdout.close()
    first = bench.state["pids"]["workers"]

    os.kill(first[0], signal.SIGKILL)

    wait_for(lambda: bench.state["pids"]["workers"] not in ([], first), what="new worker")
    assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=20) == 0


def test_after_a_killed_supervisor_the_same_port_can_be_had_at_once(bench: Bench) -> None:
    process = bench.up_until_ready("--workers", "2")
    port = bench.state["url"].rsplit(":", 1)[1]
    process.kill()

    second = bench.up_until_ready("--port", port)

    assert second.poll() is None


@pytest.mark.parametrize("flags", [[], ["--detach"]])
def test_a_child_that_cannot_start_ends_the_start_with_its_log(bench: Bench, flags: list[str]) -> None:
    process = bench.up(*flags, worker="broken")
    output, errors = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "worker-0 ended 3 times" in json.loads(errors)["error"]["message"]
    assert "ValueError: the spec is wrong" in output
    assert not bench.family()


def test_a_taken_port_is_named_with_the_fix(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = bench.up("--port", str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=20)

    assert process.returncode == 1
    assert "is taken by another program. fix: " in json.loads(errors)["error"]["message"]


def test_a_restart_keeps_the_pid_and_the_port_and_replaces_all_others(bench: Bench) -> None:
    bench.up_until_ready("--workers", "2")
    before = bench.state

    done = bench.run("restart", "--json")

    after = bench.state
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["event"] == "restarted"
    assert (after["url"], after["started_at"]) == (before["url"], before["started_at"])
    assert after["pids"]["supervisor"] == before["pids"]["supervisor"]
    assert not _children(after) & _children(before)
    assert len(after["pids"]["workers"]) == 2
    wait_for(lambda: set(bench.family()) == _children(after), what="end of the former children")


def test_a_server_can_be_restarted_again_and_still_ends_as_ever(bench: Bench) -> None:
    process = bench.up_until_ready()

    for _ in range(2):
        assert bench.run("restart").returncode == 0
    down = bench.run("down")

    assert down.returncode == 0, down.stderr
    assert process.wait(timeout=20) == 0
    assert not bench.family()
    assert not (bench.home / "server.json").exists()
    assert not bench.run_folder.exists()


def test_a_detached_server_restarts_at_a_hangup(bench: Bench) -> None:
    bench.up("--detach").communicate(timeout=20)
    before = bench.state

    os.kill(before["pids"]["supervisor"], signal.SIGHUP)

    wait_for(lambda: bench.state["restarts"] == 1, what="restart", within_s=10.0)
    assert not _children(bench.state) & _children(before)
    assert bench.state["restart_failure"] == ""
    assert bench.run("down").returncode == 0


def test_a_second_up_is_refused_after_a_restart_too(bench: Bench) -> None:
    bench.up_until_ready()
    bench.run("restart")

    second = bench.up()
    second.communicate(timeout=20)

    assert second.returncode == 6


def test_a_signal_that_comes_during_the_exec_still_ends_the_server(bench: Bench) -> None:
    process = bench.up_until_ready()

    process.send_signal(signal.SIGHUP)
    wait_for(lambda: bench.state["is_restarting"], what="restart")
    for _ in range(20):
        if process.poll() is None:
            process.terminate()
            time.sleep(0.02)
    process.communicate(timeout=20)

    assert process.returncode == 0
    assert not bench.family()


def test_when_the_new_workers_do_not_become_ready_the_old_ones_go_on(bench: Bench) -> None:
    process = bench.up("--port", "0", worker="worker-once")
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "ready":
            break
    before = bench.state["pids"]["workers"]

    done = bench.run("restart")

    assert done.returncode == 1
    assert "the new worker-0 ended (exit status 7); the old one goes on" in done.stderr
    assert bench.state["pids"]["workers"] == before
    assert psutil.pid_exists(before[0])


def test_a_restart_is_refused_while_the_installed_version_cannot_take_over(bench: Bench) -> None:
    process = bench.up_until_ready()
    before = bench.state["pids"]
    broken = bench.first_path / "pilothouse"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('half an installation')")

    done = bench.run("restart")

    assert done.returncode == 1
    assert "cannot take over: " in done.stderr
    assert "half an installation" in done.stderr
    assert bench.state["pids"] == before
    assert process.poll() is None


def test_restart_exits_3_when_nothing_runs(bench: Bench) -> None:
    assert bench.run("restart").returncode == 3


def _children(state: dict) -> set[int]:
    return {state["pids"]["controller"], *state["pids"]["workers"]}


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_signals_that_go_on_coming_change_nothing_about_the_end(bench: Bench) -> None:
    process = bench.up_until_ready()

    while process.poll() is None:
        process.terminate()
        time.sleep(0.001)
    process.communicate(timeout=20)

    assert process.returncode == 0
    assert not bench.family()
