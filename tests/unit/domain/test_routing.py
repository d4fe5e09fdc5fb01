"""Where requests go: by weight, by subject, by load, by prefix."""

import json
from collections import Counter
from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.routing import (
    LOAD_BOUND,
    PREFIX_BYTES,
    Split,
    least_load,
    prefix_affinity,
    prefix_of,
    round_robin,
    seed_of,
    sticky_draw,
)

WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=6)
DRAWS = st.floats(0, 1, exclude_max=True)


@dataclass
class Replica:
    name: str
    load: int = 0
    free: int = 100

    def __post_init__(self) -> None:
        self.seed = seed_of(self.name)


def idle(count: int = 8) -> list[Replica]:
    return [Replica(f"r{n}") for n in range(count)]


STATES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 2)), min_size=1, max_size=8).map(
    lambda states: [Replica(f"r{n}", load, free) for n, (load, free) in enumerate(states)]
)


def chance(seed: int) -> Random:
    return Random(seed)


def test_routes_are_drawn_by_their_weights():
    random, split = chance(1), Split([90, 10, 0])

    first = Counter(split.order(random.random())[0] for _ in range(10_000))

    assert set(first) == {0, 1}
    assert 800 < first[1] < 1200


@given(WEIGHTS, DRAWS)
def test_every_route_with_a_weight_is_tried_once_the_others_by_weight(weights, draw):
    order = Split(weights).order(draw)

    assert sorted(order) == [place for place, weight in enumerate(weights) if weight]
    assert [weights[p] for p in order[1:]] == sorted((weights[p] for p in order[1:]), reverse=True)


@given(st.text(max_size=20))
def test_a_subject_always_has_the_same_draw(subject):
    assert 0 <= sticky_draw("chat", subject) < 1
    assert sticky_draw("chat", subject) == sticky_draw("chat", subject)


def test_a_changed_weight_moves_no_more_subjects_than_it_must():
    subjects = [f"s{n}" for n in range(4000)]

    def canary(weights: list[int]) -> set[str]:
        split = Split(weights)
        return {s for s in subjects if split.order(sticky_draw("chat", s))[0] == 1}

    small, large = canary([95, 5]), canary([80, 20])

    assert small < large
    assert 0.17 < len(large) / len(subjects) < 0.23


def test_subjects_are_split_anew_at_another_endpoint():
    both = sum((sticky_draw("a", f"s{n}") < 0.5) == (sticky_draw("b", f"s{n}") < 0.5) for n in range(2000))

    assert 900 < both < 1100


def test_two_choices_keep_loads_close():
    random, replicas = chance(2), idle()
    for _ in range(8000):
        least_load(replicas, random.random()).load += 1

    loads = [replica.load for replica in replicas]
    assert max(loads) - min(loads) < 12


@given(st.integers(2, 9), DRAWS)
def test_the_two_that_are_drawn_are_two(count, draw):
    replicas = idle(count)
    one = least_load(replicas, draw)
    one.load = 1

    assert least_load(replicas, draw) is not one


@given(DRAWS)
def test_the_idle_one_of_two_is_taken(draw):
    assert least_load([Replica("busy", load=3), Replica("idle")], draw).name == "idle"


@given(STATES, DRAWS, st.integers(0, 1000))
def test_every_way_finds_a_place_exactly_where_there_is_one(replicas, draw, number):
    has_place = any(replica.free for replica in replicas)
    for chosen in (
        least_load(replicas, draw),
        round_robin(replicas, number),
        prefix_affinity(replicas, prefix_of(b"%d" % number, "t")),
    ):
        assert (chosen is not None) == has_place
        assert chosen is None or chosen.free > 0


def test_nobody_is_no_choice():
    assert least_load([], 0.5) is None
    assert round_robin([], 3) is None
    assert prefix_affinity([], 3) is None


def test_turns_go_round():
    assert [round_robin(idle(3), turn).name for turn in range(4)] == ["r0", "r1", "r2", "r0"]


def test_a_prefix_has_one_replica_and_prefixes_spread():
    homes = Counter(prefix_affinity(idle(), prefix_of(b"prompt %d" % n, "team")).name for n in range(4000))

    assert len(homes) == 8
    assert min(homes.values()) > 350


def test_when_a_replica_goes_only_its_own_prefixes_move():
    prefixes = [prefix_of(b"prompt %d" % n, "team") for n in range(1000)]
    replicas = idle()

    moved = [p for p in prefixes if prefix_affinity(replicas, p) != prefix_affinity(replicas[:-1], p)]

    assert 60 < len(moved) < 200
    assert all(prefix_affinity(replicas, p).name == "r7" for p in moved)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8), st.binary(max_size=64))
def test_affinity_never_loads_one_over_the_bound(loads, prompt):
    replicas = [Replica(f"r{n}", load) for n, load in enumerate(loads)]

    chosen = prefix_affinity(replicas, prefix_of(prompt, "team"))

    assert chosen.load < LOAD_BOUND * (sum(loads) + 1) / len(loads) + 1


def test_teams_with_equal_prompts_share_no_prefix():
    assert prefix_of(b"same", "a") != prefix_of(b"same", "b")


def chat(*texts: str, separators: tuple[str, str] = (", ", ": ")) -> bytes:
    messages = [{"role": "user", "content": text} for text in texts]
    return json.dumps(messages, separators=separators).encode()


@given(st.text(max_size=300), st.lists(st.text(max_size=300), min_size=1, max_size=4))
def test_a_conversation_keeps_its_prefix_while_it_grows(first, more):
    for separators in ((", ", ": "), (",", ":")):
        short, long = (prefix_of(chat(first, *said, separators=separators), "t") for said in (more[:1], more))
        assert short == long


def test_what_begins_with_another_message_has_another_prefix():
    assert prefix_of(chat("one", "same"), "t") != prefix_of(chat("two", "same"), "t")


def test_of_a_long_prompt_the_beginning_counts():
    document = "x" * PREFIX_BYTES

    assert prefix_of(chat(document + "first question"), "t") == prefix_of(chat(document + "second"), "t")
