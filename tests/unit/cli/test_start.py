"""From `up` to ready: what is shown, when it is given up, and the line to paste."""

import io
import json
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from pilothouse import __version__
from pilothouse.cli.start import Began, curl_line, tell_ready, wait_until_ready
from pilothouse.cli.terminal import Terminal
from pilothouse.cli.watch import Seen
from pilothouse.config import make_settings
from pilothouse.domain.status import DeploymentStatus, Progress

READY = Seen(is_ready=True, endpoints=("smollm2",))


def pulling(done: int, *, stage: str = "downloading") -> Seen:
    progress = Progress(stage=stage, done_bytes=done, total_bytes=100)
    return Seen(deployments=(DeploymentStatus(name="smollm2", phase="pulling", progress=progress),))


def failed(message: str) -> Seen:
    return Seen(deployments=(DeploymentStatus(name="smollm2", phase="failed", message=message),))


class FakeWatch:
    def __init__(self, *looks: Seen) -> None:
        self._looks = list(looks)

    def look(self) -> Seen:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


def wait(*looks: Seen, is_json: bool = False, fail_after_s: float | None = None) -> Seen | None:
    left = iter(range(50))
    return wait_until_ready(
        FakeWatch(*looks),  # type: ignore[arg-type]
        Terminal(is_json=is_json),
        pause=lambda seconds: next(left, None) is None,
        fail_after_s=fail_after_s,
    )


def test_a_download_is_told_each_tenth_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    wait(*[pulling(done) for done in (0, 1, 5, 11, 12, 55, 100)], READY)

    assert capsys.readouterr().out.splitlines() == [
        f"smollm2: pulling downloading {share}% of 100 B" for share in (0, 10, 50, 100)
    ]


def test_progress_is_json_lines_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    wait(pulling(50), READY, is_json=True)

    line = json.loads(capsys.readouterr().out)
    assert (line["event"], line["progress"]["done_bytes"]) == ("progress", 50)


def test_a_server_that_is_gone_ends_the_waiting() -> None:
    assert wait(pulling(1)) is None


def test_a_failure_is_waited_through_unless_it_is_to_be_reported() -> None:
    assert wait(failed("no network"), READY) == READY
    assert wait(failed("no network"), fail_after_s=0.0) == failed("no network")


def test_a_failure_counts_only_when_nothing_else_moves() -> None:
    both = Seen(deployments=(*failed("no network").deployments, *pulling(1).deployments))

    assert both.failure == ""
    assert failed("no network").failure == "smollm2: no network"


@pytest.mark.parametrize("home", ["/srv/pilot house", "/srv/it's", "/srv/$(x)"])
def test_the_line_to_paste_reads_the_key_file_whatever_it_is_called(home: str) -> None:
    line = curl_line("http://127.0.0.1:1", shlex.quote(f"{home}-keys/admin.key"), "smollm2")

    words = shlex.split(line.replace('"Authorization: Bearer $(cat ', "").replace(')" -H', " -H"))
    assert f"{home}-keys/admin.key" in words
    assert json.loads(words[-1])["model"] == "smollm2"


def test_with_tls_the_line_trusts_the_certificate_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("not a certificate")

    line = curl_line("https://127.0.0.1:1", "k", "smollm2", certificate=str(tmp_path / "c.pem"))

    assert line.startswith(f"curl --cacert {tmp_path}/c.pem https://127.0.0.1:1/v1/chat/completions ")


def test_ready_is_the_last_line_with_url_and_key_file(capsys: pytest.CaptureFixture[str]) -> None:
    settings = make_settings(home="/h")
    began = Began(url="http://127.0.0.1:1", pid=7, settings=settings, at_s=0.0)

    tell_ready(began, Terminal(is_json=True), READY, took_s=1.234)

    assert json.loads(capsys.readouterr().out) == {
        "event": "ready",
        "level": "info",
        "url": "http://127.0.0.1:1",
        "admin_key_file": "/h-keys/admin.key",
        "home": "/h",
        "pid": 7,
        "version": __version__,
        "endpoints": ["smollm2"],
        "took_s": 1.23,
    }


def test_people_are_told_that_the_model_is_a_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    began = Began(url="http://127.0.0.1:1", pid=7, settings=make_settings(home="/h"), at_s=0.0)

    tell_ready(began, Terminal(is_json=False), READY, took_s=1.0)
    told = capsys.readouterr().out

    assert "demonstration model" in told
    assert "pilothouse model suggest" in told
    assert "pilothouse down --home /h" in told


def test_a_server_without_endpoints_has_started_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = wait(Seen(reasons=("no endpoint is declared",), is_empty=True))
    assert seen is not None
    began = Began(url="http://127.0.0.1:1", pid=7, settings=make_settings(home="/h"), at_s=0.0)

    tell_ready(began, Terminal(is_json=False), seen, took_s=1.0)
    told = capsys.readouterr().out

    assert "none is declared" in told
    assert "apply --home /h -f FILE" in told
    assert "curl" not in told


def test_what_the_shell_would_not_find_is_named_by_its_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [".venv/bin/pilothouse", "up"])
    began = Began(url="http://127.0.0.1:1", pid=7, settings=make_settings(home="/h"), at_s=0.0)

    tell_ready(began, Terminal(is_json=False), READY, took_s=1.0)
    told = capsys.readouterr().out

    assert ".venv/bin/pilothouse down --home /h" in told
    assert ".venv/bin/pilothouse model suggest" in told


def test_on_a_narrow_terminal_the_figures_stay_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(force_terminal=True, width=80, file=io.StringIO(), legacy_windows=False)
    monkeypatch.setattr("pilothouse.cli.start.Console", lambda: screen)

    wait(pulling(50, stage="unpacking SmolLM2-135M-Instruct.Q4_1.gguf"), pulling(50, stage="x" * 40), READY)

    assert "50 B of 100 B" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_a_closed_terminal_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("pilothouse.cli.terminal.click.echo", broken)

    Terminal(is_json=True).event("ready")
    Terminal(is_json=False).event("child_died", "warning", child="worker-0", status="exit status 1")
