import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kit import documents
from pilothouse.kit.documents import Malformed, Place, read_json, read_yaml, show_path

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
# YAML itself makes one line break of another; those are not values of a spec.
TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20)
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=10).filter(
    lambda x: x != "<<"
)
TREES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
)


@given(TREES)
def test_what_yaml_wrote_is_read_back_as_it_was(tree: Any) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True).encode()

    assert read_yaml(text).value == tree


@given(TREES)
def test_json_is_read_as_the_library_reads_it(tree: Any) -> None:
    text = json.dumps(tree).encode()

    assert read_json(text).value == tree


def test_every_value_has_its_line_and_column() -> None:
    document = read_yaml(b"a:\n  b: 1\n  c:\n    - x\n    - {d: off}\n")

    assert document.value == {"a": {"b": 1, "c": ["x", {"d": False}]}}
    assert document.place(("a", "b")) == Place(2, 6)
    assert document.place(("a", "b"), of_key=True) == Place(2, 3)
    assert document.place(("a", "c", 0)) == Place(4, 7)
    assert document.place(("a", "c", 1, "d")) == Place(5, 11)
    assert document.place(("a", "c")) == Place(3, 3)
    assert document.texts[("a", "c", 1, "d")] == "off"


def test_of_a_value_that_is_missing_the_owner_is_told() -> None:
    assert read_yaml(b"a:\n  b: 1\n").place(("a", "z", "y")) == Place(1, 1)


def test_keys_are_names_whatever_they_look_like() -> None:
    assert read_yaml(b"on: 1\n2: x\n~: y\n1.0: z\n").value == {"on": 1, "2": "x", "~": "y", "1.0": "z"}


def test_anchors_and_merged_mappings_are_read() -> None:
    text = b"base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}\nlist: [*b, *b]\n"

    assert read_yaml(text).value == {
        "base": {"x": 1, "y": 2},
        "mine": {"y": 3, "x": 1},
        "list": [{"x": 1, "y": 2}, {"x": 1, "y": 2}],
    }


@pytest.mark.parametrize(
    ("text", "fault", "place"),
    [
        (b"a: 1\nb: 2\na: 3\n", "the key 'a' stands twice, first in line 1", (3, 1)),
        (b"a: {b: 1, b: 2}", "stands twice", (1, 11)),
        (b"a: [1, 2\nb: 3\n", "not valid YAML", (2, 2)),
        (b"\ta: 1", "not valid YAML", (1, 1)),
        (b"a: 1\n---\nb: 2\n", "second document", (2, 1)),
        (b"a: !!python/object:os.system {}", "tag", (1, 4)),
        (b"a: !secret x", "tag", (1, 4)),
        (b"a: *none", "no anchor", (1, 4)),
        (b"? [a]\n: 1\n", "a key is plain text", (1, 3)),
        (b"a: {<<: 1}", "<< takes a mapping", (1, 9)),
        (b"x: " + b"[" * 100 + b"]" * 100, "nested more than 64 deep", (1, 67)),
        (b"a: " + b"9" * 5000, "cannot be read", (1, 4)),
        (b"a: &x [*x]", "no anchor", (1, 8)),
    ],
)
def test_what_cannot_be_taken_is_refused_where_it_stands(
    text: bytes, fault: str, place: tuple[int, int]
) -> None:
    with pytest.raises(Malformed, match=fault.replace("[", r"\[")) as refused:
        read_yaml(text)

    assert refused.value.place == place


@pytest.mark.parametrize("text", [b"a: \xff", b"a: \x00", b"\xfe\xff\x00"])
def test_bytes_that_are_no_text_are_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        read_yaml(text)


def test_a_bomb_of_aliases_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_VALUES", 5000)
    levels = [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [b"a%d: &a%d [%s]" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 8)]

    with pytest.raises(Malformed, match="more than 5000 values"):
        read_yaml(b"\n".join(levels))


@pytest.mark.parametrize("text", [b'{"a": 1, "a": 2}', b'{"a": NaN}', b"{", b"", b"\xff", b"9" * 5000])
def test_json_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        read_json(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    for read in (read_yaml, read_json):
        with contextlib.suppress(Malformed):
            read(text)


def test_a_path_is_written_as_messages_write_it() -> None:
    assert show_path(("endpoints", "chat", "routes", 0, "weight")) == "endpoints.chat.routes[0].weight"
