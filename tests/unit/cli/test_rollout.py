from typing import Any

import pytest

from pilothouse.cli.kinds import KINDS
from pilothouse.cli.output import Output
from pilothouse.cli.rollout import bars, share, show


def seen(points: int) -> dict[str, Any]:
    score = {
        "pairs": points,
        "mean_difference": -0.25,
        "log_e_worse": 3.0,
        "log_e_fine": 0.0,
        "is_required": True,
    }
    return {
        "endpoint": "assistant",
        "phase": "canary",
        "reason": "",
        "candidate": "new",
        "weight": 5,
        "policy": {"steps": [5, 50], "max_pairs": 1000},
        "stable": "old",
        "pairs": points,
        "started_at": 0.0,
        "ended_at": None,
        "log_rollback_at": 6.0,
        "log_promote_at": 4.6,
        "scores": {"answers": score, "feedback:thumbs": {**score, "is_required": False}},
        "history": [
            {"time": 0.0, "pairs": n + 1, "weight": 5, "evidence": {"answers": [n / points * 3, -1.0]}}
            for n in range(points)
        ],
    }


def test_evidence_is_shown_as_its_share_of_what_is_needed():
    assert (share(3.0, 6.0), share(-1.0, 6.0), share(9.0, 6.0)) == ("50%", "0%", "100%")


@pytest.mark.parametrize("points", [1, 2, 40, 41, 60])
def test_the_picture_is_never_wider_than_a_terminal_and_ends_with_now(points: int):
    drawn = bars([n / points for n in range(points)] + [1.0], 1.0)

    assert len(drawn) <= 41
    assert drawn[-1] == "█"


def test_the_status_says_where_it_is_and_draws_why(capsys: pytest.CaptureFixture[str]):
    show(Output(is_json=False), seen(30))

    printed = capsys.readouterr().out
    assert "new gets 5 % (steps 5, 50)" in printed
    assert "feedback:thumbs" in printed
    assert "50%" in printed
    assert "rolled back when full" in printed


@pytest.mark.parametrize(
    ("phase", "part"), [("promoted", "all"), ("rolled_back", "nothing"), ("aborted", "nothing")]
)
def test_of_one_that_ended_it_says_who_serves_since(
    capsys: pytest.CaptureFixture[str], phase: str, part: str
):
    show(Output(is_json=False), {**seen(30), "phase": phase, "weight": 0, "ended_at": 1.0})

    assert f"new gets {part} since it ended" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("phase", "ended_at", "weight"),
    [("canary", None, "5 %"), ("promoted", 1.0, None), ("rolled_back", 1.0, None), ("aborted", 1.0, None)],
)
def test_the_table_has_no_share_of_one_that_ended(phase: str, ended_at: float | None, weight: str | None):
    """A candidate that was promoted gets what the routes say, not 0 %."""
    kind = KINDS["rollouts"]
    share_now = 5 if ended_at is None else 0
    cells = kind.cells({**seen(30), "phase": phase, "ended_at": ended_at, "weight": share_now})

    assert cells[kind.columns.index("weight")] == weight


def test_as_a_shadow_it_says_how_many_pairs_nobody_saw(capsys: pytest.CaptureFixture[str]):
    policy = {"steps": [5, 50], "max_pairs": 1000, "shadow_pairs": 40}
    show(Output(is_json=False), {**seen(30), "phase": "shadow", "policy": policy})
    assert "30 of 40 unseen" in capsys.readouterr().out

    show(Output(is_json=False), {**seen(60), "policy": policy, "shadowed": 40})
    assert "60 of at most 1000, 40 of them unseen" in capsys.readouterr().out


def test_before_anything_was_compared_nothing_is_drawn(capsys: pytest.CaptureFixture[str]):
    show(Output(is_json=False), {**seen(1), "scores": {}, "history": []})

    assert "worse" not in capsys.readouterr().out
