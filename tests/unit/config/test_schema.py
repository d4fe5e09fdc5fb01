"""The schema for editors takes what the reader takes and refuses what it refuses."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from jsonschema import Draft202012Validator

from pilothouse.cli.schema import spec_schema
from pilothouse.config import read_spec_json
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.spec import DEFAULT_SPEC
from pilothouse.domain.speccheck import engine_faults, refuse
from spec_trees import ENGINES, TREE, mutated

DOCS = Path(__file__).parents[3] / "docs"
VALIDATOR = Draft202012Validator(spec_schema(ENGINES))


def examples() -> list[tuple[str, Any]]:
    """Whole spec files that the documents show."""
    found = []
    for page in sorted(DOCS.rglob("*.md")):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            tree = yaml.safe_load(block)
            if isinstance(tree, dict) and "version" in tree and {"endpoints", "models"} & tree.keys():
                found.append((page.name, tree))
    return found


def test_it_is_a_schema_of_its_dialect() -> None:
    Draft202012Validator.check_schema(spec_schema(ENGINES))


def test_it_takes_the_examples_of_the_documents() -> None:
    found = examples()

    assert found
    for page, tree in [*found, ("default", json.loads(msgspec.json.encode(DEFAULT_SPEC))), ("tests", TREE)]:
        assert [(page, error.message) for error in VALIDATOR.iter_errors(tree)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("deploymnets",), {}),
        (("deployments", "tiny", "engin"), "x"),
        (("endpoints", "chat", "routes"), "tiny"),
        (("endpoints", "chat", "limits", "max_tokens"), "many"),
        (("deployments", "tiny", "engine_options", "slots"), 1.5),
        (("endpoints", "chat", "records"), {"content": "open"}),
    ],
)
def test_it_refuses_what_is_wrong(path: tuple[str, ...], value: object) -> None:
    tree = copy.deepcopy(TREE)
    owner = tree
    for part in path[:-1]:
        owner = owner[part]
    owner[path[-1]] = value

    assert not VALIDATOR.is_valid(tree)


def test_it_knows_the_options_of_each_engine() -> None:
    tree = copy.deepcopy(TREE)
    deployment = tree["deployments"]["tiny"]

    deployment["engine_options"] = {"base_url": "http://a/v1"}
    assert not VALIDATOR.is_valid(tree)
    deployment["engine"] = "openai"
    assert VALIDATOR.is_valid(tree)
    deployment["engine_options"] = {"threads": 1}
    assert not VALIDATOR.is_valid(tree)


def test_every_field_says_what_it_means() -> None:
    kinds = spec_schema(ENGINES)["$defs"]
    silent = [
        f"{name}.{field}"
        for name, kind in kinds.items()
        for field, facts in kind.get("properties", {}).items()
        if "description" not in facts and "$ref" not in facts
    ]

    assert len(silent) <= 8, silent


@given(mutated())
def test_schema_and_reader_agree_on_any_change(tree: Any) -> None:
    try:
        spec = read_spec_json(msgspec.json.encode(tree))
        refuse(list(engine_faults(spec, ENGINES)))
    except InvalidRequest:
        assert not VALIDATOR.is_valid(tree)
    else:
        assert VALIDATOR.is_valid(tree)
