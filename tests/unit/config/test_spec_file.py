"""The reader of spec files: any change to a good file gives a good spec or a fault with its place."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.config import read_spec, read_spec_file, read_spec_json, write_spec
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.spec import DEFAULT_SPEC, Spec
from spec_trees import FILE, mutated

LOCATED = re.compile(r"^mine\.yaml:\d+:\d+: ", re.MULTILINE)


def fault_of(text: bytes) -> str:
    with pytest.raises(InvalidRequest) as refused:
        read_spec(text, name="mine.yaml")
    return refused.value.message


def test_a_spec_is_read_and_written_and_read_as_it_was() -> None:
    spec = read_spec(FILE)

    assert spec.endpoints["chat"].limits.max_tokens == 64
    assert read_spec(write_spec(spec)) == spec
    assert read_spec(write_spec(DEFAULT_SPEC)) == DEFAULT_SPEC


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("engine_options", "engine_option", "7:5: deployments.tiny.engine_option: unknown field"),
        ("engine_options", "engine_option", "did you mean `engine_options`?"),
        (
            "max_tokens: 64",
            "max_tokens: many",
            "11:26: endpoints.chat.limits.max_tokens: 'many' is not a whole",
        ),
        ("version: 1", "version: 2", "1:10: version: 2 is none of 1"),
        ("version: 1", "version: 0", "is none of 1. fix: write `version: 1`, the schema that this"),
        ("[{deployment: tiny, weight: 100}]", "tiny", "10:13: endpoints.chat.routes: 'tiny' is not a list"),
        (
            "routes: [{deployment: tiny, weight: 100}]",
            "records: {}",
            "9:3: endpoints.chat: the field `routes`",
        ),
        ("deployment: tiny, ", "", "10:14: endpoints.chat.routes[0]: the field `deployment` is missing"),
        (
            "licence: MIT",
            "licence: MIT, licence: GPL",
            "3:58: the key 'licence' stands twice, first in line 3",
        ),
        ("models:", "model:", "2:1: model: unknown field `model`; did you mean `models`?"),
        ("{slots: 4}", "", "7:20: deployments.tiny.engine_options: nothing is not a mapping from names"),
        ("timeout: 60s", "timeout: [60s]", "endpoints.chat.limits.timeout: a list is not text"),
    ],
)
def test_a_fault_is_told_with_line_column_field_value_and_the_nearest_name(
    old: str, new: str, fault: str
) -> None:
    text = FILE.replace(old.encode(), new.encode(), 1)

    assert fault in fault_of(text)


@pytest.mark.parametrize("text", [b"", b"# nothing but words\n"])
def test_an_empty_file_is_told_where_to_get_a_full_one(text: bytes) -> None:
    assert "is empty; see: pilothouse spec" in fault_of(text)


def test_all_faults_are_told_at_once() -> None:
    text = FILE.replace(b"licence", b"licens").replace(b": 64", b": x").replace(b"100", b"''")

    assert len(LOCATED.findall(fault_of(text))) == 3


def test_text_without_quotes_is_text_where_text_belongs() -> None:
    spec = read_spec(FILE.replace(b"MIT", b"2.0").replace(b"tiny:", b"on:").replace(b"tiny,", b"on,"))

    assert spec.models["on"].licence == "2.0"


def test_the_revision_that_a_file_was_made_from_is_read() -> None:
    assert read_spec_file(b"# revision 12\n" + FILE, name="a").revision == 12
    assert read_spec_file(FILE, name="a").revision is None
    assert read_spec_file(b"# revised\n" + FILE, name="a").revision is None


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("deployments.tiny.engine: 'x' is not known", "6:5"),
        ("endpoints.chat.routes[0].deployment: 'x' is not known", "10:27"),
        ("endpoints.chat.routes[7].deployment: 'x' is not known", "10:5"),
        ("models.tiny.source: write it: so", "3:18"),
        ("something else", "1:1"),
    ],
)
def test_what_the_server_finds_wrong_gets_its_line_too(fault: str, place: str) -> None:
    file = read_spec_file(FILE.replace(b"model: tiny", b"engine: x"), name="a.yaml")

    located = file.located(fault)

    if fault.startswith("deployments"):
        place = "6:13"
    assert located == f"a.yaml:{place}: {fault}"


def test_a_spec_over_the_network_is_told_with_its_fields() -> None:
    with pytest.raises(
        InvalidRequest, match=r"spec: deployments\.a\.engin: unknown field `engin`; did"
    ) as refused:
        read_spec_json(b'{"deployments": {"a": {"engin": "x"}}}')

    assert len(refused.value.faults) == 1


@given(mutated())
def test_any_change_gives_a_good_spec_or_a_located_fault(tree: Any) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True).encode()

    spec, fault = outcome(text)

    if spec is None:
        assert all(LOCATED.match(line) or line.startswith("and ") for line in fault.splitlines()), fault
    else:
        assert read_spec(write_spec(spec)) == spec


@given(st.data())
def test_any_cut_or_changed_byte_gives_a_good_spec_or_a_fault(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(FILE) - 1))
    text = FILE[:place] + data.draw(st.binary(max_size=3)) + FILE[place + data.draw(st.integers(0, 3)) :]

    spec, fault = outcome(text)

    assert spec is not None or fault.startswith("mine.yaml:")


def outcome(text: bytes) -> tuple[Spec | None, str]:
    """The spec, or what is wrong."""
    try:
        return read_spec(text, name="mine.yaml"), ""
    except InvalidRequest as refused:
        return None, refused.message
