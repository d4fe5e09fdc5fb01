"""What `model` shows without a server: suggestions, and the stream of a pull."""

import json

import click.testing
import pytest

from pilothouse.cli import models
from pilothouse.cli.models import watch_pull
from pilothouse.cli.output import Output
from pilothouse.domain.errors import ModelFileRefused, UpstreamError

PROGRESS = b'{"event":"progress","stage":"downloading","done_bytes":1,"total_bytes":3}'
MODEL = b'{"event":"model","model":{"name":"tiny","digest":"sha256:0"}}'


def test_suggestions_fit_unless_all_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "free_bytes", lambda folder: 1_500_000_000)
    runner = click.testing.CliRunner()

    some = json.loads(runner.invoke(models.suggest_models, ["--json"]).stdout)["items"]
    all_of_them = json.loads(runner.invoke(models.suggest_models, ["--all", "--json"]).stdout)["items"]

    assert {one["fits"] for one in some} == {True}
    assert len(all_of_them) > len(some)
    assert all(one["reason"] for one in all_of_them if not one["fits"])
    assert all(one["source"].startswith("hf:") for one in some)


def test_a_pull_ends_with_its_model() -> None:
    assert watch_pull(Output(is_json=False), iter([PROGRESS, b"", PROGRESS, MODEL]))["name"] == "tiny"


def test_a_pull_that_fails_raises_what_the_server_said() -> None:
    failed = b'{"event":"error","error":{"code":"model_file_refused","message":"it lies"}}'

    with pytest.raises(ModelFileRefused, match="it lies"):
        watch_pull(Output(is_json=False), iter([PROGRESS, failed]))


@pytest.mark.parametrize("lines", [[], [PROGRESS], [b"<html>"]])
def test_a_stream_that_is_cut_or_strange_is_no_success(lines: list[bytes]) -> None:
    with pytest.raises(UpstreamError):
        watch_pull(Output(is_json=False), iter(lines))
