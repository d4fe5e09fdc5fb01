from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.answer_id import is_signed, record_of, sign, signer
from pilothouse.kit.ids import new_id

KEYED = signer(b"k" * 32)


def test_a_signed_id_looks_as_before_and_sorts_by_the_time_it_was_made():
    plain = new_id("req_")
    signed = sign(KEYED, plain, "red")

    assert len(signed) == len(plain)
    assert signed[:26] == plain[:26]
    assert record_of("chatcmpl-" + signed.removeprefix("req_")) == signed


@given(st.text(max_size=20), st.text(max_size=20))
def test_it_speaks_for_one_team_alone(team: str, other: str):
    signed = sign(KEYED, new_id("req_"), team)

    assert is_signed(KEYED, signed, team)
    assert is_signed(KEYED, signed, other) == (team == other)
    assert not is_signed(signer(b"x" * 32), signed, team)


def test_an_id_that_nobody_signed_is_none():
    assert not is_signed(KEYED, new_id("req_"), "red")


def test_what_is_no_id_of_ours_leads_nowhere():
    for text in ("", "chatcmpl-", "chatcmpl-123", "x" * 32, "chatcmpl-" + "g" * 32, "run_" + "a" * 32):
        assert record_of(text) is None
    assert record_of("cmpl-" + "a" * 32) == record_of("req_" + "a" * 32) == "req_" + "a" * 32
