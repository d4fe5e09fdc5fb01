import copy
import json
import logging
import pickle

import msgspec
import pytest

from pilothouse.kit.secret import Secret

PLANTED = "s3cr3t-value"


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r:>20}".format,
        "{:>20}".format,
        lambda s: "%s %r" % (s, s),  # noqa: UP031
        lambda s: f"{s}{s!r}",
        lambda s: json.dumps({"key": s}),
        lambda s: s + "",
        lambda s: "".join([s]),
        lambda s: str(vars(type(s))),
        lambda s: str(s.encode()),
        lambda s: logging.LogRecord("x", 20, "x", 1, "%s", (s,), None).getMessage(),
    ],
)
def test_no_way_of_printing_shows_the_value(show):
    assert PLANTED not in show(Secret(PLANTED))


def test_the_value_comes_out_only_where_it_is_asked_for():
    assert Secret(PLANTED).reveal() == PLANTED


@pytest.mark.parametrize("keep", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_neither_pickled_nor_copied(keep):
    with pytest.raises(TypeError, match="not pickled"):
        keep(Secret(PLANTED))


def test_a_strict_encoder_refuses_it():
    with pytest.raises(TypeError):
        msgspec.json.encode({"key": Secret(PLANTED)})


def test_secrets_are_equal_by_value_and_never_equal_to_plain_text():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("a") != "***"
    assert "***" not in {Secret("a"): 1}
