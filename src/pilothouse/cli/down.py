"""`pilothouse down`: end the server of a home, and make sure that nothing of it is left."""

import os
import signal
import time

import click

from pilothouse.app.home import HomeLock, ServerState, is_locked, read_state
from pilothouse.app.leftovers import Leftover, end, is_same_process, processes_of
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.config import Settings, make_settings
from pilothouse.domain.errors import OperationFailed, ServerUnreachable

LEFTOVER_GRACE_S = 10.0


@click.command()
@home_options
@click.option("--now", is_flag=True, help="Do not wait for requests in flight.")
@click.option(
    "--timeout", "timeout_s", default=120.0, metavar="SECONDS", help="How long to wait (default: 120)."
)
@json_option
def down(home: str | None, keys: str | None, *, now: bool, timeout_s: float, is_json: bool) -> None:
    """
    Stop the server of a home: requests in flight finish, engines end.

    Exits with 3 when nothing runs.

    \b
    Example:
      pilothouse down
      pilothouse down --home ./state --now
    """
    settings = make_settings(home=home, keys=keys)
    out = Output(is_json=is_json)
    stopped = stop_server(settings, at_once=now, timeout_s=timeout_s)
    left = end_leftovers(settings)
    if not stopped and not left:
        raise ServerUnreachable(
            f"no server runs in {settings.home}. fix: nothing to stop; name another --home?"
        )
    if out.is_json:
        out.json({"event": "stopped", "home": settings.home, "leftovers": [one.pid for one in left]})
    for one in left:
        out.line(f"ended what a killed server had left: {one.role} (pid {one.pid})")
    if stopped:
        out.line(f"stopped: {stopped.url}")


def end_leftovers(settings: Settings) -> list[Leftover]:
    """
    End what runs without a server, and return it. The lock keeps a new server from starting meanwhile.

    Raises:
        OperationFailed: Something does not end.
    """
    if not settings.home_path.is_dir():
        return []
    lock = HomeLock(settings.home_path)
    lock.acquire()
    try:
        left = processes_of(settings.run_path)
        remaining = end(left, grace_s=LEFTOVER_GRACE_S)
    finally:
        lock.release()
    if remaining:
        raise OperationFailed(f"still there: {_names(remaining)}. fix: kill -9 {_pids(remaining)}")
    return left


def stop_server(settings: Settings, *, at_once: bool, timeout_s: float) -> ServerState | None:
    """
    End the supervisor, and with it the rest; None when none runs.

    Raises:
        OperationFailed: It did not end in time, or its state file is not to be trusted.
    """
    if not is_locked(settings.home_path):
        return None
    state = read_state(settings.state_file)
    if state is None or not is_same_process(state.pids.supervisor, state.started_at):
        raise OperationFailed(
            f"a server of {settings.home} runs, but {settings.state_file} does not say which process it is. "
            "fix: wait a second and try again; if it stays so, end `pilothouse up` yourself"
        )
    pid = state.pids.supervisor
    if not state.is_stopping:
        os.kill(pid, signal.SIGTERM)
    if at_once:
        time.sleep(0.1)  # the kernel may merge two signals that are pending at once
        _signal_again(pid, state)
    if not _wait_for_unlock(settings, timeout_s):
        raise OperationFailed(
            f"the server (pid {pid}) did not end within {timeout_s:.0f} s. "
            f"fix: pilothouse down --now, see pilothouse logs supervisor, at last kill -9 {pid}"
        )
    return state


def _signal_again(pid: int, state: ServerState) -> None:
    if is_same_process(pid, state.started_at):
        os.kill(pid, signal.SIGTERM)


def _wait_for_unlock(settings: Settings, timeout_s: float) -> bool:
    give_up_at = time.monotonic() + timeout_s
    while is_locked(settings.home_path):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.05)
    return True


def _names(leftovers: list[Leftover]) -> str:
    return ", ".join(f"{one.role} (pid {one.pid})" for one in leftovers)


def _pids(leftovers: list[Leftover]) -> str:
    return " ".join(str(one.pid) for one in leftovers)
