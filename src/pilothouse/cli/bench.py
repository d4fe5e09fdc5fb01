"""`pilothouse bench`: a load test, and its figures."""

import asyncio
import signal
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec
import uvloop
from msgspec import Struct

from pilothouse.cli.client import Server
from pilothouse.cli.find import find_server, is_loopback
from pilothouse.cli.load import OK, Answer, Load, Plan, Report, Spread, closed_loop, constant_rate, report
from pilothouse.cli.load_http import HttpTransport, Question, resolve
from pilothouse.cli.options import home_options, json_option
from pilothouse.cli.output import Output
from pilothouse.domain.errors import (
    InvalidApiKey,
    InvalidRequest,
    ModelNotFound,
    OperationFailed,
    PermissionDenied,
    PilothouseError,
    ServerUnreachable,
)
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.simulate.calibrate import Answered

HOPELESS: dict[str, type[PilothouseError]] = {
    "invalid_api_key": InvalidApiKey,
    "permission_denied": PermissionDenied,
    "model_not_found": ModelNotFound,
}
SPREADS = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")


class BenchOptions(Struct, frozen=True, kw_only=True):
    url: str | None
    home: str | None
    keys: str | None
    api_key: str | None
    rate: float | None
    concurrency: int | None
    stream: bool
    duration: float
    endpoint: str
    prompt_bytes: int
    max_tokens: int
    slo_ttft: float | None
    max_inflight: int
    timeout: float
    answers: Path | None
    yes: bool
    is_json: bool


@click.command()
@click.argument("url", required=False)
@click.option(
    "--rate", type=click.FloatRange(0.01, 100_000), help="Requests a second, whatever the answers do."
)
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Callers that ask in turn (default: 1).")
@click.option("--stream", is_flag=True, help="Stream the answers: times the first token and those after it.")
@click.option(
    "--duration",
    type=click.FloatRange(0.1, 86_400),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to send.",
)
@click.option("--endpoint", default="smollm2", show_default=True, metavar="NAME", help="Endpoint to ask.")
@click.option(
    "--prompt-bytes",
    type=click.IntRange(1, 1_000_000),
    default=64,
    show_default=True,
    help="Size of the question; each differs from its first word on.",
)
@click.option(
    "--max-tokens", type=click.IntRange(1, 100_000), default=32, show_default=True, help="Longest answer."
)
@click.option(
    "--slo-ttft", type=float, metavar="MS", help="Goodput counts answers whose first token came by then."
)
@click.option(
    "--max-inflight",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="With --rate: more than so many at once are counted as missed.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Of one request.",
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --stream: write the times of each answer, for simulate --fit.",
)
@click.option("--api-key", metavar="KEY", help="Key to present (better: PILOTHOUSE_API_KEY).")
@click.option("--yes", is_flag=True, help="Yes, load a machine that is not this one.")
@home_options
@json_option
def bench(**given: object) -> None:
    """
    Load test of chat completions: percentiles, time to first token, goodput.

    With --rate, latency counts from when a request was due, so that a stall is
    not hidden; what could not be sent counts as missed. Otherwise it is a closed
    loop of --concurrency callers.

    \b
    Example:
      pilothouse bench --concurrency 4 --stream --duration 30
      pilothouse bench http://127.0.0.1:8420 --rate 5 --stream --slo-ttft 500
    """
    options = msgspec.convert(given, BenchOptions)
    if options.rate is not None and options.concurrency is not None:
        raise InvalidRequest("--rate and --concurrency are two different tests. fix: give one of them")
    if options.answers and not options.stream:
        raise InvalidRequest("--answers has first tokens, which only a stream shows. fix: --stream")
    server = _server(options)
    host = urlsplit(server.url).hostname or ""
    if not is_loopback(host) and not options.yes:
        raise PermissionDenied(
            f"{host} is not this machine, and a load test can harm it. fix: --yes, if it may"
        )
    out = Output(is_json=options.is_json)
    load = uvloop.run(_run(server, options, out))
    if options.answers:
        write_answers(options.answers, load)
    result = report(load, slo_ttft_s=_seconds(options.slo_ttft))
    if out.is_json:
        out.json(result)
    else:
        show(out, result)
    if not result.ok:
        raise OperationFailed("no request was answered. fix: see the errors by code above")


def write_answers(file: Path, load: Load) -> None:
    """A line for each answer that has tokens, in the order in which they were asked for."""
    lines = [
        msgspec.json.encode(
            Answered(
                began=sample.sent_s,
                prompt=answer.prompt_tokens,
                output=answer.tokens,
                first=answer.first_s,
                ended=answer.ended_s,
            )
        )
        for sample in sorted(load.samples, key=lambda one: one.sent_s)
        if (answer := sample.answer).code == OK and answer.first_s is not None and answer.prompt_tokens
    ]
    try:
        file.write_bytes(b"".join(line + b"\n" for line in lines))
    except OSError as exc:
        raise OperationFailed(f"{file} cannot be written: {exc.strerror}") from exc


def _server(options: BenchOptions) -> Server:
    """Without a key where there is none: what is tested may be a server without keys."""
    try:
        return find_server(home=options.home, keys=options.keys, url=options.url, api_key=options.api_key)
    except InvalidApiKey:
        if options.url is None:
            raise
        return Server(options.url, "")


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


async def _run(server: Server, options: BenchOptions, out: Output) -> Load:
    question = Question(
        endpoint=options.endpoint,
        prompt_bytes=options.prompt_bytes,
        max_tokens=options.max_tokens,
        stream=options.stream,
        timeout_s=options.timeout,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_early() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)  # the second one does not wait for answers

    loop.add_signal_handler(signal.SIGINT, stop_early)
    sweeper = Sweeper()
    sweeper.start()
    address = resolve(server.host, server.port, tls=server.is_tls)
    transport = HttpTransport(server, question, address=address, sweeper=sweeper)
    out.line(
        f"asking {options.endpoint} at {server.url} for {options.duration:.0f} s (Ctrl-C ends it earlier)"
    )
    try:
        _check_first(await transport.ask(0), server.url)
        plan = Plan(duration_s=options.duration, stop=stop)
        if options.rate is None:
            return await closed_loop(transport, plan, concurrency=options.concurrency or 1)
        return await constant_rate(transport, plan, rate=options.rate, max_inflight=options.max_inflight)
    finally:
        transport.close()
        sweeper.stop()


def _check_first(answer: Answer, url: str) -> None:
    """A warm-up, and a look: what would fail for every request is said once, and at once."""
    if answer.code == "connect_failed":
        raise ServerUnreachable(f"nobody answers at {url}. fix: pilothouse up, or another URL")
    if answer.code in HOPELESS:
        raise HOPELESS[answer.code](
            f"the first request was refused: {answer.code}. fix: --endpoint, --api-key"
        )


def show(out: Output, result: Report) -> None:
    out.line(
        f"{result.requests} requests in {result.duration_s:.1f} s: {result.ok} ok, {result.failed} failed, "
        f"{result.missed} missed",
        style="bold",
    )
    out.line(f"{result.requests_per_s:.2f} requests/s, {result.tokens_per_s:.1f} tokens/s out")
    objective = (
        "" if result.slo_ttft_ms is None else f" with the first token within {result.slo_ttft_ms:.0f} ms"
    )
    out.line(f"goodput {result.goodput_ratio:.2%} answered{objective}\n")
    spreads = (
        ("latency", result.latency),
        ("first token", result.ttft),
        ("between tokens", result.inter_token),
    )
    rows = [_row(name, values) for name, values in spreads if values]
    if rows:
        out.table(None, ("ms", *(name.removesuffix("_ms").replace("_", ".") for name in SPREADS), "n"), rows)
    if any("*" in str(cell) for row in rows for cell in row):
        out.line("* too few requests to tell it from the maximum")
    if result.errors:
        out.line("")
        out.table(None, ("error", "requests"), list(result.errors.items()))
    if result.worst_late_ms > 20:
        out.line(
            f"\nwarning: this program sent up to {result.worst_late_ms:.0f} ms late; "
            "it is too slow for the rate, or shares its processor",
            style="yellow",
        )


def _row(name: str, values: Spread) -> list[str]:
    """A percentile needs at least one value beyond it, or it is only the largest by another name."""
    needed = {"p50_ms": 2, "p90_ms": 10, "p95_ms": 20, "p99_ms": 100, "p99_9_ms": 1000, "max_ms": 1}
    cells = [f"{getattr(values, key):.1f}{'*' if values.count < needed[key] else ''}" for key in SPREADS]
    return [name, *cells, str(values.count)]
