"""
What the terminal shows between `up` and ready: what is waited for, and at the end how to ask.

Starts nothing. The same display serves `up` in the foreground and `up --detach`.
"""

import importlib
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from pilothouse import __version__
from pilothouse.cli.terminal import Terminal
from pilothouse.cli.text import clean, size
from pilothouse.cli.watch import Seen, Watch
from pilothouse.config import Settings

POLL_S = 0.05
SLOW_POLL_S = 0.25
NAMES_PATIENCE_S = 2.0
"""So long is the status asked for the endpoints' names once the server is ready."""
DEMONSTRATION_MODEL = "smollm2"
QUESTION = "What is a pilot house?"


class Began(Struct, frozen=True, kw_only=True):
    """A server that was just started."""

    url: str
    pid: int
    settings: Settings
    at_s: float
    """`time.monotonic()` of the command's beginning."""


def follow(
    began: Began, terminal: Terminal, *, pause: Callable[[float], bool], fail_after_s: float | None = None
) -> str | None:
    """
    Show a start to its end.

    Args:
        pause: Waits that many seconds; True ends the waiting, for the server is gone.
        fail_after_s: Give up when everything has failed for so long; None waits on, for it is tried again.

    Returns:
        "" when it is ready and was told, why not when it failed, None when it is gone.
    """
    seen = wait_until_ready(
        Watch(began.url, began.settings), terminal, pause=pause, fail_after_s=fail_after_s
    )
    if seen is None:
        return None
    if not seen.is_ready and not seen.is_empty:
        return seen.failure or "; ".join(seen.reasons) or "the server did not become ready"
    tell_ready(began, terminal, seen, took_s=time.monotonic() - began.at_s)
    return ""


def wait_until_ready(
    watch: Watch, terminal: Terminal, *, pause: Callable[[float], bool], fail_after_s: float | None = None
) -> Seen | None:
    """As `follow`: what was seen last, or None when `pause` ended it."""
    began = time.monotonic()
    failing_since: float | None = None
    ready_since: float | None = None
    with _display(terminal) as show:
        while True:
            seen = watch.look()
            now = time.monotonic()
            if seen.is_ready:
                ready_since = ready_since or now
                if seen.endpoints or now - ready_since > NAMES_PATIENCE_S:
                    return seen
            if seen.is_empty:
                return seen
            show(seen)
            failing_since = (failing_since or now) if seen.failure else None
            if fail_after_s is not None and failing_since and now - failing_since >= fail_after_s:
                return seen
            if pause(POLL_S if now - began < 10 else SLOW_POLL_S):
                return None


@contextmanager
def _display(terminal: Terminal) -> Iterator[Callable[[Seen], None]]:
    console = Console()
    if terminal.is_json or not console.is_terminal:
        yield _Lines(terminal).show
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), _Bytes())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress, terminal).show


class _Bytes(ProgressColumn):
    """How far a download is and how fast; nothing for what is not counted in bytes."""

    def get_table_column(self) -> Column:
        """On a narrow terminal the bar gives way, not the figures."""
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text("")
        speed = f", {size(task.speed)}/s" if task.speed else ""
        return Text(f"{size(task.completed)} of {size(task.total)}{speed}", style="green")


class _Bars:
    """A bar for each deployment that is not ready."""

    def __init__(self, progress: Progress, terminal: Terminal) -> None:
        self._progress = progress
        self._terminal = terminal
        self._tasks: dict[str, tuple[TaskID, str]] = {}
        self._told: set[str] = set()

    def show(self, seen: Seen) -> None:
        for one in seen.deployments:
            stage = clean(one.progress.stage if one.progress else one.phase)
            task = self._task(one.name, stage)
            self._progress.update(
                task,
                completed=one.progress.done_bytes if one.progress else 0,
                total=(one.progress.total_bytes or None) if one.progress else None,
                visible=one.phase != "ready",
            )
            if one.phase == "failed" and one.message not in self._told:
                self._told.add(one.message)
                self._terminal.event("waiting", "warning", message=f"{one.name}: {one.message}; trying again")

    def _task(self, name: str, stage: str) -> TaskID:
        """A new bar for a new stage: its speed is not that of the one before."""
        task, earlier = self._tasks.get(name, (None, ""))
        if task is not None and stage == earlier:
            return task
        if task is not None:
            self._progress.remove_task(task)
        task = self._progress.add_task(f"{name}: {stage}", total=None)
        self._tasks[name] = (task, stage)
        return task


class _Lines:
    """The same for a log or a program: one line a change, and each tenth of a download."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._told: dict[str, str] = {}

    def show(self, seen: Seen) -> None:
        for one in seen.deployments:
            done = one.progress
            share = f"{done.done_bytes * 10 // done.total_bytes * 10}%" if done and done.total_bytes else ""
            mark = f"{one.phase} {done.stage if done else one.message} {share}".strip()
            if self._told.get(one.name) == mark or one.phase == "ready":
                continue
            self._told[one.name] = mark
            if self._terminal.is_json:
                self._terminal.event("progress", **msgspec.structs.asdict(one))
            else:
                total = f" of {size(done.total_bytes)}" if done and done.total_bytes else ""
                self._terminal.say(f"{one.name}: {mark}{total}")


def tell_ready(began: Began, terminal: Terminal, seen: Seen, *, took_s: float) -> None:
    """The last of the start: where it is, and a line that works when pasted."""
    settings = began.settings
    if terminal.is_json:
        terminal.event(
            "ready",
            url=began.url,
            admin_key_file=str(settings.admin_key_file),
            home=settings.home,
            pid=began.pid,
            version=__version__,
            endpoints=seen.endpoints,
            took_s=round(took_s, 2),
        )
        return
    key_file = shlex.quote(str(settings.admin_key_file))
    endpoint = seen.endpoints[0] if seen.endpoints else DEMONSTRATION_MODEL
    terminal.say(f"Pilothouse {__version__} is ready, after {took_s:.1f} s", color="green")
    terminal.say(f"  server    {began.url}    (OpenAI base URL: {began.url}/v1)")
    terminal.say(
        f"  endpoint  {'none is declared' if seen.is_empty else ', '.join(seen.endpoints) or endpoint}"
    )
    terminal.say(f"  key file  {settings.admin_key_file}")
    program = invoked_as()
    terminal.say(f"  stop      {program} down --home {shlex.quote(settings.home)}")
    if DEMONSTRATION_MODEL in seen.endpoints:
        terminal.say(
            f"  {DEMONSTRATION_MODEL} is a small demonstration model and often wrong; "
            f"better ones for this machine: {program} model suggest"
        )
    if seen.is_empty:
        terminal.say(f"\nDeclare one: {program} apply --home {shlex.quote(settings.home)} -f FILE\n")
        return
    terminal.say("\nAsk it:")
    terminal.say(curl_line(began.url, key_file, endpoint, certificate=settings.tls_certificate) + "\n")


def invoked_as() -> str:
    """How to call this program again: by its path where the shell would not find it, as after `make up`."""
    path = sys.argv[0]
    is_hidden = Path(path).name == "pilothouse" and shutil.which("pilothouse") is None
    return shlex.quote(path) if is_hidden else "pilothouse"


def curl_line(url: str, quoted_key_file: str, endpoint: str, *, certificate: str = "") -> str:
    """With TLS it trusts the server's own certificate, under the name that stands in it."""
    body = json.dumps({"model": endpoint, "messages": [{"role": "user", "content": QUESTION}]})
    trust = f"--cacert {shlex.quote(certificate)} " if certificate else ""
    name = (
        importlib.import_module("pilothouse.cli.certificate").name_in(Path(certificate))
        if certificate
        else ""
    )
    if name:
        parts = urlsplit(url)
        trust += f"--resolve {name}:{parts.port}:{parts.hostname} "
        url = f"https://{name}:{parts.port}"
    return (
        f'curl {trust}{url}/v1/chat/completions -H "Authorization: Bearer $(cat {quoted_key_file})" '
        f"-H 'content-type: application/json' -d '{body}'"
    )
