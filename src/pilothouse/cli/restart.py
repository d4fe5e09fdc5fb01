"""`pilothouse restart`: replace every process of a running server, code included, without an interruption."""

import os
import signal
import time

import click

from pilothouse.app.home import ServerState, is_locked, read_state
from pilothouse.app.leftovers import is_same_process
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.config import Settings, make_settings
from pilothouse.domain.errors import Conflict, OperationFailed, ServerUnreachable

POLL_S = 0.05


@click.command()
@home_options
@click.option(
    "--timeout", "timeout_s", default=180.0, metavar="SECONDS", help="How long to wait (default: 180)."
)
@json_option
def restart(home: str | None, keys: str | None, *, timeout_s: float, is_json: bool) -> None:
    """
    Replace all processes of the server by the installed version, without an interruption.

    The port stays open, requests and streams under way end where they began, and
    engines run on. When the new processes do not become ready, the old ones go on,
    and this command exits with 1. A HUP to the server's process does the same.

    \b
    Example:
      pip install --upgrade pilothouse && pilothouse restart
      pilothouse restart --home ./state --json
    """
    settings = make_settings(home=home, keys=keys)
    out = Output(is_json=is_json)
    before = _running(settings)
    began = time.monotonic()
    os.kill(before.pids.supervisor, signal.SIGHUP)
    after = _wait_for_end(settings, before, began + timeout_s)
    if after.restart_failure:
        raise OperationFailed(after.restart_failure)
    took_s = round(time.monotonic() - began, 1)
    if out.is_json:
        out.json({"event": "restarted", "url": after.url, "version": after.version, "took_s": took_s})
    out.line(f"restarted: {after.url}, version {after.version}, after {took_s} s")
    out.line(f"earlier workers finish their requests, for at most {settings.drain_timeout_s:.0f} s")


def _running(settings: Settings) -> ServerState:
    """
    The server to restart.

    Raises:
        ServerUnreachable: None runs.
        Conflict: It is ending, or restarting already.
        OperationFailed: Its state file is not to be trusted.
    """
    if not is_locked(settings.home_path):
        raise ServerUnreachable(
            f"no server runs in {settings.home}. fix: pilothouse up, or name another --home"
        )
    state = read_state(settings.state_file)
    if state is None or not is_same_process(state.pids.supervisor, state.started_at):
        raise OperationFailed(
            f"a server of {settings.home} runs, but {settings.state_file} does not say which process it is. "
            "fix: wait a second and try again; if it stays so, stop it and start it: pilothouse down"
        )
    if state.is_stopping:
        raise Conflict(f"the server at {state.url} is stopping. fix: wait for its end, then pilothouse up")
    if state.is_restarting:
        raise Conflict(f"the server at {state.url} restarts already. fix: wait for that, then look again")
    return state


def _wait_for_end(settings: Settings, before: ServerState, give_up_at: float) -> ServerState:
    while time.monotonic() < give_up_at:
        time.sleep(POLL_S)
        state = read_state(settings.state_file)
        if state is not None and state.restarts > before.restarts and not state.is_restarting:
            return state
        if not is_locked(settings.home_path):
            raise OperationFailed("the server ended meanwhile. fix: see pilothouse logs supervisor")
    raise OperationFailed(
        "the restart did not end in time; it may still be under way. fix: pilothouse status, "
        "pilothouse logs supervisor"
    )
