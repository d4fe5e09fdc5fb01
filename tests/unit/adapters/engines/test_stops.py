from hypothesis import given
from hypothesis import strategies as st

from pilothouse.adapters.engines._stops import StopCutter

TEXTS = st.text("ab. ", max_size=40)
STOPS = st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3)


@given(TEXTS, STOPS, st.integers(1, 7))
def test_pieces_say_what_comes_before_the_first_stop_text(text: str, stops: list[str], size: int) -> None:
    cutter = StopCutter(stops)
    said = "".join(cutter.feed(text[i : i + size]) for i in range(0, len(text), size)) + cutter.close()

    # What is found first is decided by where it ends: a piece that was said cannot be taken back.
    assert text.startswith(said)
    assert not any(stop in said for stop in stops)
    assert cutter.has_stopped == any(stop in text for stop in stops)
    if not cutter.has_stopped:
        assert said == text


def test_only_what_may_begin_a_stop_text_is_held_back() -> None:
    cutter = StopCutter(["END"])

    assert [cutter.feed(piece) for piece in ("a", "E", "N", "x", "E", "ND", "y")] == [
        "a",
        "",
        "",
        "ENx",
        "",
        "",
        "",
    ]
    assert cutter.has_stopped
