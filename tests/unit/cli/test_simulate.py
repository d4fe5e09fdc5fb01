import json
from pathlib import Path

import pytest

from pilothouse.cli.bench import write_answers
from pilothouse.cli.load import Answer, Load, Sample
from pilothouse.cli.simulate import simulate
from pilothouse.domain.errors import InvalidRequest

SCENARIO = """
version: 1
deployments: {chat: {engine: {slots: 2, batch_tokens: 64, start: 9s}}}
tenants: {all: {arrivals: {rate: 1}}}
"""


def sample(sent_s: float, prompt: int, output: int, *, code: str = "ok") -> Sample:
    """From an engine whose step takes 10 ms, and 2 ms more for each token."""
    steps = [64] * (prompt // 64) + ([prompt % 64] if prompt % 64 else [])
    first = sent_s + sum(0.010 + 0.002 * step for step in steps)
    ended = first + 0.012 * (output - 1)
    answer = Answer(code=code, ended_s=ended, first_s=first, prompt_tokens=prompt, tokens=output)
    return Sample(due_s=sent_s, sent_s=sent_s, answer=answer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    return tmp_path


def fit(folder: Path, *more: str) -> None:
    arguments = ["-f", str(folder / "scenario.yaml"), "--fit", str(folder / "answers.jsonl"), *more]
    simulate.main(arguments, standalone_mode=False)


def test_what_a_load_test_wrote_tells_the_engine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [
        sample(5.0 * number, prompt, 20) for number, prompt in enumerate([10, 30, 64, 128, 250, 500, 40])
    ]
    failed = sample(40.0, 10, 20, code="cut")
    write_answers(folder / "answers.jsonl", Load(samples=[failed, *reversed(samples)]))

    fit(folder, "--json")

    engine = json.loads(capsys.readouterr().out)
    assert abs(engine["prefill_ms"] / 2 - 1) < 0.1
    assert abs((engine["step_ms"] + engine["decode_ms"]) / 12 - 1) < 0.1
    assert (engine["slots"], engine["start"]) == (2, "9s")


def test_the_line_may_be_put_into_the_scenario(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_answers(folder / "answers.jsonl", Load(samples=[sample(0.0, 100, 20)]))
    fit(folder)
    line = capsys.readouterr().out.splitlines()[0]
    scenario = SCENARIO.replace("engine: {slots: 2, batch_tokens: 64, start: 9s}", line)
    (folder / "scenario.yaml").write_text(scenario)

    fit(folder)

    assert "slots: 2, batch_tokens: 64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no answer to fit to"),
        (
            '{"began": 1.0, "prompt": 0, "output": 1, "first": 1.1, "ended": 1.1}',
            r"answers.jsonl:1: .*prompt",
        ),
        ("what", r"answers.jsonl:1: "),
        (
            '{"began": 1.0, "prompt": 9, "output": 9, "first": 1.1, "ended": 2}\n' * 3,
            "3 answers were under way at once, but the engine has 2 slots",
        ),
    ],
)
def test_answers_that_tell_nothing_are_refused(folder: Path, text: str, said: str) -> None:
    (folder / "answers.jsonl").write_text(text)

    with pytest.raises(InvalidRequest, match=said):
        fit(folder)


def test_one_engine_is_fitted_at_a_time(folder: Path) -> None:
    write_answers(folder / "answers.jsonl", Load(samples=[sample(0.0, 100, 20)]))
    (folder / "scenario.yaml").write_text(SCENARIO.replace("{chat:", "{other: {}, chat:"))

    with pytest.raises(InvalidRequest, match="one deployment"):
        fit(folder)
