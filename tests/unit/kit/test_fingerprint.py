from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kit.fingerprint import OwnFingerprint, shared_fingerprint

OWN = OwnFingerprint()
pairs = st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=3000))


@given(pairs, pairs)
def test_equal_bytes_have_equal_names_and_others_have_others(one, other):
    assert (OWN.of(*one) == OWN.of(*other)) == (one == other)
    assert OWN.of(*one) == OWN.of(*one)


@given(st.binary(min_size=40, max_size=40), st.integers(0, 319))
def test_one_bit_makes_another_name(rest, at):
    flipped = bytearray(rest)
    flipped[at // 8] ^= 1 << at % 8

    assert OWN.of(b"head", rest) != OWN.of(b"head", bytes(flipped))


def test_where_the_head_ends_is_part_of_an_own_name():
    assert OWN.of(b"ab", b"c") != OWN.of(b"a", b"bc")


def test_nobody_else_gives_the_same_name_to_what_is_long_unless_it_is_shared():
    long = b"rest" * 1000
    assert OwnFingerprint().of(b"head", long) != OwnFingerprint().of(b"head", long)
    assert shared_fingerprint(b"head", b"rest") == shared_fingerprint(b"head", b"rest")


def test_a_name_is_short_however_long_the_bytes():
    assert len(OWN.of(b"h" * 500, b"r" * 100_000)) == 16
    assert len(OWN.of(b"h" * 500, b"r" * 524)) < 1100
    assert len(shared_fingerprint(b"h" * 500, b"r" * 100_000)) == 32
