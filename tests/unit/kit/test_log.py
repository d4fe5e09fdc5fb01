import io
import json
import logging

import pytest

from pilothouse.domain.errors import InvalidRequest
from pilothouse.kit.log import Log


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_object_a_line():
    out = io.StringIO()

    Log("controller", stream=out).event("replica_started", name="a\nb", pid=7)

    (line,) = lines(out)
    assert (line["event"], line["process"], line["name"], line["pid"]) == (
        "replica_started",
        "controller",
        "a\nb",
        7,
    )


@pytest.mark.parametrize(
    "text", ["ph_abcd1234_SECRETSECRET_0a1b2c3d", "Bearer SECRETSECRET", "bearer SECRETSECRET"]
)
def test_a_credential_is_cut_out_at_the_sink(text):
    out = io.StringIO()

    Log("controller", stream=out).event("odd", note=f"got {text}", inner={"header": text})

    assert "SECRET" not in out.getvalue()
    assert "[cut]" in str(lines(out)[0]["note"])


def test_an_error_is_logged_at_its_own_level():
    out = io.StringIO()

    Log("controller", stream=out).failure("apply_failed", InvalidRequest("no such field"))

    assert lines(out)[0]["level"] == "info"
    assert lines(out)[0]["message"] == "no such field"


def test_levels_below_the_least_are_silent():
    out = io.StringIO()

    Log("controller", stream=out, least="warning").event("quiet")

    assert out.getvalue() == ""


def test_a_closed_stream_loses_the_line_and_not_the_caller():
    out = io.StringIO()
    log = Log("controller", stream=out)
    out.close()

    log.event("unheard")


def test_lines_of_libraries_have_the_same_form():
    out = io.StringIO()
    cause = ValueError("broken")
    record = logging.LogRecord(
        "library", logging.ERROR, "file.py", 1, "went %s", ("wrong",), (ValueError, cause, None)
    )

    Log("controller", stream=out).handler().emit(record)

    (line,) = lines(out)
    assert (line["logger"], line["level"], line["message"]) == ("library", "error", "went wrong")
    assert "broken" in str(line["cause"])
