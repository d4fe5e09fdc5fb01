"""`pilothouse status`: what runs, how it is, and why it is not better."""

from pathlib import Path

import click

from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import ago, moment, size, span
from pilothouse.control.status import HostFigures, StatusReport

MOST_ERRORS = 5


@click.command()
@client_command
def status(reach: Reach) -> None:
    """
    What runs, how it is, and why.

    \b
    Example:
      pilothouse status
      pilothouse status --json | jq .phase
    """
    server = reach.server()
    if reach.out.is_json:
        reach.out.json(server.get("/admin/v1/status"))
        return
    show(reach.out, server.fetch("/admin/v1/status", StatusReport), Path(reach.settings.home))


def show(out: Output, report: StatusReport, home: Path) -> None:
    style = {"ready": "bold green", "degraded": "bold yellow"}.get(report.phase, "bold red")
    out.line(f"{report.phase}   {report.url or home}", style=style)
    for reason in report.reasons:
        out.line(f"  {reason}", style="yellow")
    out.line(
        f"version {report.version}, up {span(report.uptime_s)}, spec revision {report.spec_revision}, "
        f"{size(report.disk_free_bytes)} free on disk, {report.journal.lag_records} records to drain"
    )
    if report.store.kind != "sqlite":
        out.line(f"store {report.store.place}")
    out.line(_host(report.host))
    _serving(out, report)
    if report.processes:
        out.line("")
        out.table(
            None,
            ("process", "name", "pid", "age", "cpu", "memory", "peak", "gpu", "gpu memory"),
            [
                (
                    p.role,
                    p.name,
                    p.pid,
                    ago(p.started_at, now=report.time),
                    f"{p.cpu_seconds:.1f} s",
                    size(p.rss_bytes),
                    size(p.peak_rss_bytes),
                    None if p.gpu_utilization_ratio is None else f"{p.gpu_utilization_ratio:.0%}",
                    None if p.gpu_memory_bytes is None else size(p.gpu_memory_bytes),
                )
                for p in report.processes
            ],
        )
    for error in report.last_errors[:MOST_ERRORS]:
        often = f" ({error.count} times)" if error.count > 1 else ""
        out.line(f"{moment(error.time)} {error.event}: {error.message}{often}", style="red")


def _host(host: HostFigures) -> str:
    texts = [
        f"host: {host.cpus} CPUs, {size(host.memory_available_bytes)} of "
        f"{size(host.memory_total_bytes)} memory to be had"
    ]
    for gpu in host.gpus:
        busy = "" if gpu.utilization_ratio is None else f", {gpu.utilization_ratio:.0%} busy"
        free = gpu.memory_total_bytes - gpu.memory_used_bytes
        texts.append(f"GPU {gpu.index} {gpu.name}: {size(free)} of {size(gpu.memory_total_bytes)} free{busy}")
    return "; ".join(texts)


def _serving(out: Output, report: StatusReport) -> None:
    """Endpoints, deployments and replicas, each as a table where there are any."""
    tables = (
        (
            ("endpoint", "phase", "reason", "message"),
            [(e.name, e.phase, e.reason, e.message) for e in report.endpoints],
        ),
        (
            ("deployment", "phase", "ready", "message"),
            [(d.name, d.phase, f"{d.ready}/{d.wanted}", d.message) for d in report.deployments],
        ),
        (
            ("replica", "state", "engine", "pid", "age", "reason"),
            [
                (r.name, r.state, r.engine, r.pid or None, ago(r.started_at, now=report.time), r.reason)
                for r in report.replicas
            ],
        ),
    )
    for columns, rows in tables:
        if rows:
            out.line("")
            out.table(None, columns, rows)
