"""`pilothouse doctor`: look at everything that is often wrong, and say what to do."""

import resource
import time

import click

from pilothouse.app.home import ServerState, running_server
from pilothouse.cli import checks
from pilothouse.cli.checks import Finding
from pilothouse.cli.checks_python import python_findings
from pilothouse.cli.client import Server
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.config import Settings, make_settings
from pilothouse.domain.errors import OperationFailed


@click.command()
@home_options
@click.option("--host", metavar="ADDRESS", help="Address that up would listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port that up would listen on.")
@json_option
def doctor(home: str | None, keys: str | None, *, host: str | None, port: int | None, is_json: bool) -> None:
    """
    Find what is wrong with this machine, this Python and this home; each with the fix.

    Exits with 1 when something fails. Changes nothing.

    \b
    Example:
      pilothouse doctor
      pilothouse doctor --json | jq '.findings[] | select(.status != "ok")'
    """
    settings = make_settings(home=home, keys=keys, host=host, port=port)
    findings = examine(settings)
    worst = next((word for word in ("fail", "warn") if any(f.status == word for f in findings)), "ok")
    out = Output(is_json=is_json)
    rows = [(f.status, f.check, f.what + (f". fix: {f.fix}" if f.fix else "")) for f in findings]
    out.table({"status": worst, "findings": findings}, ("", "check", "finding"), rows)
    failed = [f.check for f in findings if f.status == "fail"]
    if failed:
        raise OperationFailed(
            f"{len(failed)} of {len(findings)} checks failed. fix: see {', '.join(failed)} above"
        )


def examine(settings: Settings) -> list[Finding]:
    state = running_server(settings.home_path)
    return [
        *checks.machine_findings(),
        *python_findings(),
        checks.disk(settings.home_path),
        checks.clock(time.time(), checks.newest_file_s(settings.home_path)),
        checks.open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        checks.private_folder("home", settings.home_path),
        checks.private_folder("keys", settings.keys_path),
        *checks.key_files(settings.keys_path),
        checks.port(settings.host, settings.port, state),
        *checks.leftovers(settings),
        _readiness(state),
    ]


def _readiness(state: ServerState | None) -> Finding:
    if state is None:
        return Finding(check="server", status="ok", what="none runs in this home")
    return checks.readiness(
        *Server(state.url, "", certificate=state.certificate).probe("/readyz", timeout_s=3.0)
    )
