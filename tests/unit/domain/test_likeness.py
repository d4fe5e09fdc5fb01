"""What must not differ between two questions, whatever their vectors say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.likeness import agree, marks_of


def alike(one, other):
    return agree(marks_of(one), marks_of(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of Slovenia?", "Name the capital city of Slovenia."),
        ("How do I reset my password?", "What is the way to set a new password?"),
        ("Can I return it after 30 days?", "Is a return possible once thirty days have passed?"),
        ("How much is 5 kg in pounds?", "5 kilograms are how many pounds?"),
        ("Is 1,000 enough?", "Would 1000 be enough?"),
        ("It's Anna's turn, right?", "Is it the turn of Anna?"),
        ("I don't want sugar", "I want no sugar"),
        ("Please explain photosynthesis", "explain photosynthesis"),
    ],
)
def test_the_same_in_other_words_agrees(one, other):
    assert alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a dose of 5 mg", "a dose of 50 mg"),
        ("a dose of 5 mg", "a dose of 5 ml"),
        ("convert 3 miles to km", "convert 3 km to miles"),
        ("from Oslo to Rome", "from Rome to Oslo"),
        ("Who is Ada Lovelace?", "Who is Ada Palmer?"),
        ("Paris in spring", "London in spring"),
        ("use GPT models", "use LLaMA models"),
        ("is it safe", "is it not safe"),
        ("it works", "it doesn\u2019t work"),
        ("with eggs", "without eggs"),
        ("enable dark mode", "disable dark mode"),
        ("the largest file", "the smallest file"),
        ("before lunch", "after lunch"),
        ("two monitors", "three monitors"),
        ("half of it", "a quarter of it"),
        ("20%", "20 dollars"),
        ("at 9:00", "at 19:00"),
        ("release 1.2.3", "release 1.2.4"),
    ],
)
def test_a_difference_that_matters_is_seen(one, other):
    assert not alike(one, other)


@given(st.text(max_size=300))
def test_any_text_agrees_with_itself(text):
    assert alike(text, text)


@given(st.text(max_size=100), st.text(max_size=100))
def test_agreeing_has_no_direction(one, other):
    assert alike(one, other) == alike(other, one)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_other_numbers_never_agree(one, other):
    assert alike(f"show order {one} please", f"show order {other} please") == (one == other)
