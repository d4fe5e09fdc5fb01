"""
Waiting until what was declared runs, with progress, or saying why it does not.

It looks at the status again and again; nothing here makes anything happen.
"""

import time
from collections.abc import Iterator

import click

from pilothouse.cli.client import Server
from pilothouse.cli.options import Command
from pilothouse.cli.output import Output
from pilothouse.cli.text import size
from pilothouse.control.status import StatusReport
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.status import DeploymentStatus

LOOK_S = 0.3
HOPELESS_AFTER_S = 10.0
"""What fails for so long, its retries included, is told instead of waited for."""
_FAILURES = frozenset({"start_failed", "pull_failed", "unknown_model"})


def wait_options(function: Command) -> Command:
    """`--wait` and `--timeout`."""
    function = click.option(
        "--timeout", metavar="DURATION", default="10m", show_default=True, help="How long --wait waits."
    )(function)
    return click.option("--wait", is_flag=True, help="Wait until it runs, or say why it does not.")(function)


def wait_for(out: Output, server: Server, revision: int, *, timeout: str) -> None:
    """
    Return when everything declared in `revision` or a newer one is ready.

    Raises:
        OperationFailed: Something failed, or did not become ready in time; the message says what and why.
    """
    timeout_s = parse_duration_s(timeout, param="--timeout")
    ends = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    told: list[str] = []
    fails_since: float | None = None
    while True:
        report = server.fetch("/admin/v1/status", StatusReport)
        is_seen = report.spec_revision >= revision
        lines = list(_unready(report)) if is_seen else ["waiting for the control loop"]
        for line in lines:
            if line not in told:
                out.line(f"  {line}", style="yellow")
        told = lines
        if not lines:
            out.line(f"everything of revision {report.spec_revision} is ready", style="green")
            return
        now = time.monotonic()
        failing = is_seen and any(_fails(one) for one in report.deployments)
        fails_since = (fails_since or now) if failing else None
        if now >= ends or (fails_since is not None and now - fails_since >= HOPELESS_AFTER_S):
            words = "; ".join(lines)
            raise OperationFailed(
                f"revision {revision} is declared, and not all of it runs: {words}. What ran before goes on "
                "as far as it can. fix: correct the cause, or go back: pilothouse apply --revision N"
            )
        time.sleep(LOOK_S)


def _unready(report: StatusReport) -> Iterator[str]:
    """What is not as it was declared, one line each."""
    for one in report.deployments:
        if one.phase != "ready":
            yield f"deployment {one.name}: {one.phase}: {one.message or one.reason}{_progress(one)}"
    for endpoint in report.endpoints:
        if endpoint.phase != "ready" and all(one.phase == "ready" for one in report.deployments):
            yield f"endpoint {endpoint.name}: {endpoint.phase}: {endpoint.message or endpoint.reason}"


def _progress(status: DeploymentStatus) -> str:
    progress = status.progress
    if progress is None or not progress.total_bytes:
        return ""
    # In tenths, so that a log is not a line for each block.
    tenths = 10 * progress.done_bytes // progress.total_bytes
    return f" ({progress.stage}: {10 * tenths}% of {size(progress.total_bytes)})"


def _fails(status: DeploymentStatus) -> bool:
    return status.phase == "failed" or status.reason in _FAILURES
