from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.answer_id import AnswerIds, record_of
from pilothouse.kit.ids import new_id

KEY = b"k" * 32
NOW = 1_800_000_000.0
TEAMS = st.text(max_size=20)


def test_an_id_looks_as_one_that_is_not_signed_and_sorts_with_it_by_time():
    before, made, after = new_id("req_"), AnswerIds(KEY).make("red", NOW), new_id("req_")

    assert len(made) == len(before)
    assert before[:16] <= made[:16] <= after[:16]
    assert record_of("chatcmpl-" + made.removeprefix("req_")) == made


@given(st.lists(st.tuples(st.sampled_from(["red", "blue"]), st.floats(-1.0, 1.0)), max_size=80))
def test_no_two_are_alike_and_each_speaks_for_its_team_alone(asked: list[tuple[str, float]]):
    ids, other = AnswerIds(KEY), AnswerIds(KEY)
    made = [(ids.make(team, NOW + later), team) for team, later in asked]

    assert len({made_id for made_id, _ in made}) == len(made)
    for made_id, team in made:
        assert other.is_signed(made_id, team)
        assert not other.is_signed(made_id, "blue" if team == "red" else "red")
        assert not AnswerIds(b"x" * 32).is_signed(made_id, team)


@given(TEAMS, TEAMS)
def test_it_speaks_for_one_team_alone_whatever_it_is_called(team: str, other: str):
    made = AnswerIds(KEY).make(team, NOW)

    assert AnswerIds(KEY).is_signed(made, other) == (team == other)


@given(st.integers(0, 30), st.integers(4, 35), st.sampled_from("0123456789abcdef"))
def test_no_digit_of_it_can_be_another(earlier: int, place: int, digit: str):
    ids = AnswerIds(KEY)
    made = [ids.make("red", NOW) for _ in range(earlier + 1)][-1]
    altered = made[:place] + digit + made[place + 1 :]

    assert AnswerIds(KEY).is_signed(altered, "red") == (altered == made)


def test_ids_share_their_beginning_for_a_moment_and_no_longer():
    ids = AnswerIds(KEY)
    made = [ids.make("red", NOW + seconds)[:25] for seconds in (0.0, 0.009, 0.02, 0.005)]

    assert made[0] == made[1]
    assert len(set(made)) == 3


def test_many_teams_at_once_get_each_their_own():
    ids = AnswerIds(KEY)

    for team in [f"team{n % 1500}" for n in range(3000)]:
        assert ids.is_signed(ids.make(team, NOW), team)


def test_an_id_that_nobody_signed_is_none():
    for text in (new_id("req_"), "", "req_", "req_" + "a" * 21, "req_" + "é" * 32):
        assert not AnswerIds(KEY).is_signed(text, "red")


def test_what_is_no_id_of_ours_leads_nowhere():
    for text in ("", "chatcmpl-", "chatcmpl-123", "x" * 32, "chatcmpl-" + "g" * 32, "run_" + "a" * 32):
        assert record_of(text) is None
    assert record_of("cmpl-" + "a" * 32) == record_of("req_" + "a" * 32) == "req_" + "a" * 32
