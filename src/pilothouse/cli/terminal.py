"""What `up` tells while it starts and runs. Light, for it is there before anything else is."""

from collections.abc import Mapping

import click
import msgspec

from pilothouse.cli.text import clean
from pilothouse.kit.log import Level

_SENTENCES: Mapping[str, str] = {
    "child_died": "{child} ended ({status}); it is started again",
    "child_keeps_dying": "{child} keeps ending ({status}, {deaths} times); next try in {retry_in_s} s. "
    "fix: pilothouse logs {child}",
    "state_not_written": "server.json cannot be written: {message}",
    "stopping_at_once": "stopping at once: requests in flight are cut",
    "exposed": "{message}",
    "restarting": "restarting: new processes take over one by one, and requests under way go on",
    "restarted": "restarted, version {version}",
    "restart_failed": "not restarted: {message}",
    "waiting": "{message}",
}


class Terminal:
    """
    Tells a person, or with `--json` a program, what happens.

    Safe from two threads, and never raises: whoever started the server may have
    closed the terminal, or the pipe that reads it, and the server goes on.
    """

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json

    def event(self, name: str, level: Level = "info", /, **fields: object) -> None:
        if self.is_json:
            self._write(msgspec.json.encode({"event": name, "level": level, **fields}).decode())
        elif name in _SENTENCES:
            prefix = "warning: " if level in ("warning", "error") else ""
            self.say(prefix + _SENTENCES[name].format(**fields), color="yellow")
        elif name == "gave_up":
            lines = fields.get("tail")
            for line in lines if isinstance(lines, list) else []:
                self.say(f"  {line}")
        elif name == "stopping" and not fields.get("failure"):
            self.say("stopping: requests in flight are finished first (again: at once)")
        elif name == "stopped":
            self.say("stopped")

    def say(self, text: str, *, color: str | None = None) -> None:
        """A sentence for people; nothing with `--json`."""
        if not self.is_json:
            self._write(click.style(clean(text), fg=color) if color else clean(text))

    def _write(self, text: str) -> None:
        try:
            click.echo(text)
        except (OSError, ValueError):
            pass
