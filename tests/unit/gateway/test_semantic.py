"""An index of questions: scenes apart, the nearest first, rules above nearness, bounded."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.gateway.semantic import SemanticIndex, question_of

SCENE = b"scene"


def ask(text, *vector, scene=SCENE):
    found = question_of(scene, text, vector)
    assert found is not None
    return found


def index(**more):
    return SemanticIndex(now=lambda: 0.0, **more)


def test_a_near_question_that_agrees_is_found():
    known = index()
    known.add(ask("what is tea", 1, 0.1, 0), b"tea", expires_at=1)
    known.add(ask("what is wood", 0, 0.1, 1), b"wood", expires_at=1)

    assert known.find(ask("tell me what tea is", 2, 0.3, 0.1), 0.95) == b"tea"


def test_one_that_is_too_far_is_not():
    known = index()
    known.add(ask("what is tea", 1, 0, 0), b"tea", expires_at=1)

    assert known.find(ask("tea", 1, 1, 0), 0.95) is None


def test_rules_stand_above_nearness():
    known = index()
    known.add(ask("take 5 mg", 1, 0), b"5", expires_at=1)
    known.add(ask("take 50 mg", 1, 0.2), b"50", expires_at=1)

    assert known.find(ask("take 50 mg now", 1, 0), 0.9) == b"50"


def test_scenes_share_nothing():
    known = index()
    known.add(ask("what is tea", 1, 0), b"tea", expires_at=1)

    assert known.find(ask("what is tea", 1, 0, scene=b"other"), 0.5) is None


def test_a_question_is_forgotten_once_it_expired():
    now = [0.0]
    known = SemanticIndex(now=lambda: now[0])
    known.add(ask("what is tea", 1, 0), b"tea", expires_at=10)

    now[0] = 10.0

    assert known.find(ask("what is tea", 1, 0), 0.5) is None


def test_a_removed_question_is_gone():
    known = index()
    known.add(ask("what is tea", 1, 0), b"tea", expires_at=1)

    known.remove(ask("what is tea", 1, 0), b"tea")

    assert known.find(ask("what is tea", 1, 0), 0.5) is None
    assert known.entries == 0


def test_a_vector_without_a_direction_is_no_question():
    assert question_of(SCENE, "x", [0.0, 0.0]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=120))
def test_it_never_holds_more_than_its_room(steps):
    known = index(max_entries=20, max_per_scene=8)
    for scene, key in steps:
        known.add(ask("x", 1, key, scene=b"%d" % scene), b"%d" % key, expires_at=1)

    sizes = [len(scene) for scene in known._scenes.values()]
    assert known.entries == sum(sizes) <= 20
    assert all(0 < size <= 8 for size in sizes)


def test_the_quick_look_finds_the_nearest_of_many():
    random = Random(1)
    known = index()
    vectors = [[random.gauss(0, 1) for _ in range(128)] for _ in range(300)]
    for i, vector in enumerate(vectors):
        known.add(ask("x", *vector), b"%d" % i, expires_at=1)

    for i in range(20):
        near = [x + 0.3 * random.gauss(0, 1) for x in vectors[i]]
        assert known.find(ask("x", *near), 0.8) == b"%d" % i
