"""
`pilothouse up`: start the server of a home, in the foreground or detached, and say when it is ready.

The supervisor does the work (`app.supervisor`); here are the options, the two
ways to run it, and the end.
"""

import importlib
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from pilothouse.app.handover import HandOver, Programs
from pilothouse.app.processes import detach
from pilothouse.app.stores import recall
from pilothouse.app.supervisor import Supervisor, Teller
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.settings import UpOptions, settings_of
from pilothouse.cli.terminal import Terminal
from pilothouse.config import Settings
from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.log import Level, Log
from pilothouse.kit.ringlog import tail

DETACHED_FAILURE_S = 10.0
"""So long may everything stand at failed (it is tried again) before `--detach` reports it."""

ENGINE_GRACE_S = 5.0


@click.command()
@home_options
@click.option("--host", metavar="ADDRESS", help="Address to listen on (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port (default: 8420); 0 picks a free one.")
@click.option("--workers", type=click.IntRange(1, 64), help="Gateway processes (default: 1).")
@click.option("--config", metavar="FILE", help="Spec file, such as pilothouse.yaml.")
@click.option("--store", metavar="URL", help="Store (default: SQLite in the home).")
@click.option("--prices", metavar="FILE", help="File of prices (default: those that come with Pilothouse).")
@click.option("--tls-certificate", metavar="FILE", help="PEM file with the certificate chain.")
@click.option("--tls-key", metavar="FILE", help="PEM file with its key.")
@click.option(
    "--set", "more", multiple=True, metavar="NAME=VALUE", help="Another setting, such as journal_sync=power."
)
@click.option("--detach", is_flag=True, help="Run in the background; returns when it is ready.")
@json_option
def up(**given: object) -> None:
    """
    Start the server of a home, and say when it is ready.

    Without --config it runs what it ran before; at first the default model,
    SmolLM2-135M-Instruct, as endpoint `smollm2`. That is a demonstration model.

    \b
    Example:
      pilothouse up
      pilothouse up --home ./state --port 0 --detach --json
      pilothouse up --set trusted_proxies=10.0.0.0/8 --set drain_timeout_s=60
    """
    options = msgspec.convert(given, UpOptions)
    terminal = Terminal(is_json=options.is_json)
    settings = recall(settings_of(options))
    if options.detach:
        run_detached(settings, terminal)
    else:
        run_here(settings, terminal)


class _Both:
    """The terminal, and once there is a home its log."""

    def __init__(self, first: Teller) -> None:
        self.tellers: list[Teller] = [first]

    def event(self, name: str, level: Level = "info", /, **fields: object) -> None:
        for teller in self.tellers:
            teller.event(name, level, **fields)


def run_here(settings: Settings, terminal: Terminal, *, programs: Programs | None = None) -> None:
    """
    Be the supervisor until a signal comes.

    Raises:
        Conflict, OperationFailed: See `Supervisor.prepare`.
    """
    began = time.monotonic()
    tell = _Both(terminal)
    supervisor = Supervisor(
        settings, tell=tell, programs=programs or Programs(), is_json=terminal.is_json, sweep=sweep
    )
    if warning := supervisor.prepare():
        terminal.event("exposed", "warning", message=warning)
    ended = threading.Event()

    def watch_start() -> None:
        _follow(supervisor.url, os.getpid(), settings, terminal, began=began, pause=ended.wait)

    # A thread beside the supervisor's loop: drawing must never delay a heartbeat.
    watcher = threading.Thread(target=watch_start, name="watch-start", daemon=True)
    with supervisor_log(settings).open("a") as file:
        tell.tellers.append(Log("supervisor", stream=file))
        watcher.start()
        status = supervisor.run()
        ended.set()
        watcher.join(timeout=5.0)
    if status:
        raise OperationFailed(f"{supervisor.failure}. fix: see {supervisor.failed_log}")


def run_detached(settings: Settings, terminal: Terminal, *, programs: Programs | None = None) -> None:
    """
    Start a supervisor without a terminal; return when the server is ready.

    Raises:
        Conflict, OperationFailed: It cannot start, or did not become ready; the message says why.
    """
    began = time.monotonic()
    tell = _Both(Log("supervisor"))
    supervisor = Supervisor(
        settings, tell=tell, programs=programs or Programs(), ignore_hangup=True, sweep=sweep
    )
    warning = supervisor.prepare()
    log = supervisor_log(settings)
    log_began = log.stat().st_size if log.exists() else 0
    pid = detach(log)
    if pid == 0:
        _be_detached(supervisor)
    supervisor.let_go()
    if warning:
        terminal.event("exposed", "warning", message=warning)

    def pause(seconds: float) -> bool:
        time.sleep(seconds)
        return os.waitpid(pid, os.WNOHANG)[0] == pid

    try:
        failure = _follow(
            supervisor.url, pid, settings, terminal, began=began, pause=pause, fail_after_s=DETACHED_FAILURE_S
        )
    except KeyboardInterrupt:
        terminal.say(f"no longer waiting; the server goes on starting (pid {pid})")
        raise
    if failure is None:
        raise OperationFailed(_why_it_ended(log, log_began, terminal))
    if failure:
        raise OperationFailed(
            f"not ready: {failure}. It goes on trying at {supervisor.url}. "
            f"fix: see pilothouse logs, or stop it: pilothouse down --home {shlex.quote(settings.home)}"
        )


def run_resumed(handover: HandOver) -> None:
    """
    Be the supervisor again, after an exec: see `app.handover`.

    Raises:
        OperationFailed: It gave up.
    """
    settings = Settings.from_json(handover.settings)
    is_detached = handover.ignore_hangup
    tell = _Both(Log("supervisor") if is_detached else Terminal(is_json=handover.is_json))
    supervisor = Supervisor(
        settings,
        tell=tell,
        programs=handover.programs or Programs(),
        ignore_hangup=is_detached,
        is_json=handover.is_json,
        sweep=sweep,
    )
    supervisor.resume(handover)
    with supervisor_log(settings).open("a") as file:
        if not is_detached:
            tell.tellers.append(Log("supervisor", stream=file))
        status = supervisor.run()
    if status:
        raise OperationFailed(f"{supervisor.failure}. fix: see {supervisor.failed_log}")


def _follow(
    url: str,
    pid: int,
    settings: Settings,
    terminal: Terminal,
    *,
    began: float,
    pause: Callable[[float], bool],
    fail_after_s: float | None = None,
) -> str | None:
    # Loaded when the processes have been started: what draws bars takes as long to load as a worker.
    start = importlib.import_module("pilothouse.cli.start")
    server = start.Began(url=url, pid=pid, settings=settings, at_s=began)
    outcome: str | None = start.follow(server, terminal, pause=pause, fail_after_s=fail_after_s)
    return outcome


def _be_detached(supervisor: Supervisor) -> None:
    """The child of the fork. It leaves by `_exit`: what the parent has open is not its to flush or close."""
    status = 1
    try:
        status = supervisor.run()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def sweep(run_folder: Path) -> None:
    """End engines that a controller which had to be killed left behind."""
    # Loaded at the end, for the start does not need it.
    leftovers = importlib.import_module("pilothouse.app.leftovers")
    leftovers.end(leftovers.processes_of(run_folder), grace_s=ENGINE_GRACE_S)


def supervisor_log(settings: Settings) -> Path:
    return settings.home_path / "logs" / "supervisor.log"


def _why_it_ended(log: Path, began: int, terminal: Terminal) -> str:
    """The reason that the supervisor left in its log, after its last lines."""
    with log.open("rb") as file:
        file.seek(began)
        lines = file.read(64 * 1024).decode(errors="replace").splitlines()
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "gave_up":
            terminal.event("gave_up", "error", tail=event.get("tail"), log=event.get("log"))
            return f"{event.get('reason')}. fix: see {event.get('log')}"
    for line in lines[-20:] or tail(log, 20):
        terminal.say(f"  {line}")
    return f"the server ended while it started. fix: see {log}"
