"""
Writes docs/reference from the code, so that the two cannot differ.

`python docs/generate.py` writes; with `--check` it says what is out of date and
ends with 1. Commands come from click, settings and spec fields from their
classes and the text under each field, metrics from where they are registered.
"""

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from msgspec import NODEFAULT, inspect, structs

from pilothouse.adapters.engines import _holes
from pilothouse.app.engines import option_types, own_drivers
from pilothouse.cli.main import COMMANDS, EXIT_STATUS, cli
from pilothouse.cli.schema import field_texts, spec_schema
from pilothouse.domain import errors
from pilothouse.ports.engine import EngineDriver, NotedDriver
from pilothouse.testing.conformance_engine import PROMISES
from pilothouse.wire.openai import reference, reference_parts
from pilothouse.wire.responses import reference as responses_reference

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "pilothouse"
REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Written by docs/generate.py: change the code, then run `make docs`. -->\n\n"


def commands() -> str:
    lines = [
        "# Commands\n",
        "Every command has `--json` for machines and `--help` with an example.\n",
        "Exit status: 0 done, 1 the operation failed, 2 wrong usage, 3 no server reachable, 4 refused, "
        "5 not found, 6 conflict. By [error](errors.md): "
        + ", ".join(f"`{kind.code}` {status}" for kind, status in EXIT_STATUS.items())
        + ", any other 1.\n",
    ]
    context = click.Context(
        cli, info_name="pilothouse", terminal_width=100, **{**cli.context_settings, "max_content_width": 100}
    )
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if command is not None:
            lines.extend(
                _command(command, click.Context(command, info_name=name, parent=context, terminal_width=100))
            )
    return "\n".join(lines)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    yield "```text"
    command._help_option = None  # noqa: SLF001 - it remembers the one of whoever asked first, a test perhaps
    yield command.get_help(context)
    yield "```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _command(
                    child, click.Context(child, info_name=name, parent=context, terminal_width=100)
                )


def configuration() -> str:
    lines = [
        "# Configuration\n",
        "## The server\n",
        "Set by options of `pilothouse up`, those without one by `--set NAME=VALUE`. The only variables that "
        "are read are `PILOTHOUSE_HOME`, `PILOTHOUSE_URL` and `PILOTHOUSE_API_KEY`.\n",
        *_fields(SOURCE / "config.py", ["Settings"]),
        "\n## The spec file\n",
        "What Pilothouse shall run: `pilothouse up --config pilothouse.yaml`. Unknown fields are refused.\n",
    ]
    spec = SOURCE / "domain" / "spec.py"
    classes = [node.name for node in ast.parse(spec.read_text()).body if isinstance(node, ast.ClassDef)]
    return "\n".join([*lines, *_fields(spec, classes), *_engine_options()])


def _engine_options() -> Iterator[str]:
    yield "## Options of engines\n\nWhat `deployments.<name>.engine_options` may hold, by its `engine`.\n"
    for engine, shape in option_types(own_drivers()).items():
        texts = field_texts(shape)
        yield f"### engine: {engine}\n\n| field | type | default | meaning |\n|---|---|---|---|"
        for one, info in zip(structs.fields(shape), inspect.type_info(shape).fields, strict=True):  # type: ignore[attr-defined]
            default = one.default if one.default_factory is NODEFAULT else one.default_factory()
            shown = "required" if one.required else f"`{default!r}`"
            yield f"| `{one.name}` | `{_KINDS.get(type(info.type), 'any')}` | {shown} | {texts[one.name]} |"
        yield ""


_KINDS = {
    inspect.IntType: "int",
    inspect.StrType: "str",
    inspect.BoolType: "bool",
    inspect.FloatType: "float",
    inspect.LiteralType: "one of a few words",
    inspect.VarTupleType: "list",
    inspect.DictType: "mapping",
}


def _fields(path: Path, classes: list[str]) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.ClassDef) or node.name not in classes:
            continue
        yield f"### {node.name}\n\n{_first_paragraph(ast.get_docstring(node))}\n"
        yield "| field | type | default | meaning |\n|---|---|---|---|"
        for i, item in enumerate(node.body):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                default = f"`{ast.unparse(item.value)}`" if item.value is not None else "required"
                kind = ast.unparse(item.annotation).replace("|", "\\|")
                yield f"| `{item.target.id}` | `{kind}` | {default} | {_text_below(node.body, i)} |"
        yield ""


def _text_below(body: list[ast.stmt], i: int) -> str:
    below = body[i + 1] if i + 1 < len(body) else None
    if (
        isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    ):
        return " ".join(below.value.value.split())
    return ""


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def metrics() -> str:
    rows = sorted(set(_registered()))
    return "\n".join(
        [
            "# Metrics\n",
            "At `/metrics`, Prometheus text format. Labels are closed sets; "
            "what a caller invents is counted under the empty endpoint.\n",
            "| name | kind | labels | meaning |\n|---|---|---|---|",
            *(f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in rows),
            "",
        ]
    )


def _registered() -> Iterator[tuple[str, str, str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("counter", "gauge", "most", "histogram")
                and len(node.args) >= 2
                and isinstance(node.args[0], ast.Constant)
                and str(node.args[0].value).startswith("pilothouse_")
            ):
                labels = _labels(node.args[2], constants) if len(node.args) > 2 else []
                shown = ", ".join(f"`{label}`" for label in labels)
                text = ast.literal_eval(node.args[1])
                kind = "gauge" if node.func.attr == "most" else node.func.attr
                yield str(node.args[0].value), kind, shown, str(text)


def _labels(node: ast.expr, constants: dict[str, ast.expr]) -> list[str]:
    if isinstance(node, ast.Name):
        node = constants.get(node.id, node)
    found: list[str] = []
    if isinstance(node, ast.Tuple):
        for item in node.elts:
            if isinstance(item, ast.Starred):
                found.extend(_labels(item.value, constants))
            elif isinstance(item, ast.Constant):
                found.append(str(item.value))
    return found


def error_codes() -> str:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PilothouseError) and "code" in vars(kind)
    ]
    rows = [
        f"| `{kind.code}` | {kind.status} | {'yes' if kind.retryable else 'no'} | `{kind.kind}` "
        f"| {MEANINGS[kind.code]} |"
        for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code))
    ]
    return "\n".join(
        [
            "# Errors\n",
            'On `/v1` and `/admin`: `{"error": {"message", "type", "param", "code"}}`. Codes are stable.\n',
            "| code | status | retry helps | type | what to do |\n|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def engines() -> str:
    drivers = own_drivers()
    cells = [
        f"| `{name}` | {', '.join(sorted(driver.formats)) or 'attaches only'} "
        f"| {', '.join(sorted(driver.abilities))} |"
        for name, driver in drivers.items()
    ]
    started = {
        name: driver
        for name, driver in drivers.items()
        if "launch" in driver.abilities and len(driver.cannot) < len(PROMISES)
    }
    untried = {
        name: next(iter(driver.cannot.values()))
        for name, driver in drivers.items()
        if len(driver.cannot) == len(PROMISES)
    }
    promises = [
        f"| {words} | {' | '.join('no' if key in one.cannot else 'yes' for one in started.values())} |"
        for key, words in PROMISES.items()
    ]
    reasons = [
        f"- `{name}`, {PROMISES[key]}: no, {reason}."
        for name, driver in started.items()
        for key, reason in driver.cannot.items()
    ]
    return "\n".join(
        [
            "# Engines\n",
            "`pilothouse engine list` says which are installed here, and what installs the others. Their "
            "options are in [configuration](configuration.md); a new one is "
            "[one file](../howto/add-an-engine.md).\n",
            "| engine | models | abilities |\n|---|---|---|",
            *cells,
            *(f"\n`{name}`: {one.note}." for name, one in drivers.items() if isinstance(one, NotedDriver)),
            "\n## What is tried of each\n",
            "By one suite, `pilothouse.testing.conformance_engine`, against the real server. What an "
            "engine that is only attached to keeps is for whoever runs it.\n",
            f"| | {' | '.join(f'`{name}`' for name in started)} |\n|---|{'---|' * len(started)}",
            *promises,
            *_protocols(started),
            "\n## What is kept around each\n",
            "Not by the engine but around it, so it holds for all that Pilothouse starts:\n",
            *(f"- **{what}**: {how}." for what, how in AROUND.items()),
            "\n## Why not\n",
            *reasons,
            *(f"- `{name}`, all of it: not tried, {reason}." for name, reason in untried.items()),
            *_refused_versions(),
            "",
        ]
    )


AROUND = {
    "Overload": (
        "requests beyond a deployment's places wait in the gateway's queue, and beyond that are refused with "
        "`overloaded` and a time to wait; where an engine refuses by itself, it is told the same way"
    ),
    "A crash in the middle of an answer": (
        "a typed error ends the stream, a new replica takes the place, and what the dead one shared in "
        "memory is removed"
    ),
    "A slow start": (
        "a replica is ready when it said a token, whatever it prints or answers before; one that did not in "
        "the time that its engine may take is stopped, and `status` has the reason"
    ),
    "A model of another framework, an engine that is missing, or of a version that was never tried": (
        "refused before anything starts, with what to choose or the command that installs it"
    ),
    "Stop": "drained, then TERM, then KILL of all its processes; nothing stays, and that is looked at",
    "Metrics": (
        "one set for all, under the same names: requests that run and wait, tokens, memory and processor "
        "time of each replica ([metrics](metrics.md))"
    ),
    "Secrets": (
        "a replica inherits nothing of Pilothouse's environment, and no token stands in a command line"
    ),
    "Doors": (
        "it listens at a socket in a private folder, or on loopback for those that hold a random token"
    ),
}
"""What the suite asks no engine for: the core, the target or the launch keeps it."""


def _protocols(started: Mapping[str, EngineDriver]) -> Iterator[str]:
    """Those that speak several ways are tried by each: a column holds for all of them."""
    names = [f"`{name}`" for name, one in started.items() if "protocol" in one.options.__struct_fields__]
    if names:
        yield (
            f"\nWhat is said of {' and '.join(names)} holds over REST and over gRPC "
            "(`engine_options.protocol`): the suite runs once over each."
        )


def _refused_versions() -> Iterator[str]:
    yield "\n## Versions that are refused\n"
    yield (
        "A version with a hole that is known and closed is not served from, whoever started it: it is not "
        f"healthy, and the reason names the hole. Last held against the advisories on {_holes.AS_OF}.\n"
    )
    yield "| engine | hole | from | closed in | it lets |\n|---|---|---|---|---|"
    for name, table in (("vllm", _holes.VLLM), ("sglang", _holes.SGLANG)):
        for hole in table:
            yield f"| `{name}` | {hole.name} | {hole.since} | {hole.fixed} | {hole.lets} |"


MEANINGS = {
    "internal": "A defect of ours: the server's log has the request id.",
    "invalid_request": "The message names the field and what is wrong with it.",
    "context_length_exceeded": "Prompt and answer do not fit the model; the message has both counts.",
    "content_blocked": "A guard refused the content.",
    "invalid_api_key": "No key, a wrong, revoked or expired one.",
    "permission_denied": "The key's role does not allow this.",
    "not_found": "There is nothing of that name.",
    "model_not_found": "No such endpoint, or not in the key's scope: `GET /v1/models` lists yours.",
    "conflict": "Somebody else changed it first, or it exists already: look, then try again.",
    "request_too_large": "The body or its head is over the limit.",
    "rate_limit_exceeded": "Wait for `retry-after`.",
    "budget_exceeded": "The budget of the key, team or endpoint is spent.",
    "client_closed": "The caller hung up; only records show this.",
    "not_supported": "Part of the API that this version does not have.",
    "upstream_error": "The engine answered nonsense or broke off.",
    "overloaded": "Every place and queue is taken: wait for `retry-after`.",
    "engine_unavailable": "No replica is ready; the message says why.",
    "store_unavailable": "A record or a change cannot be kept now.",
    "deadline_exceeded": "The answer did not come in time.",
    "model_file_refused": "The model file must not be loaded; the message says why.",
    "operation_failed": "The operation failed; the message says why and what to do.",
    "server_unreachable": "No server answers: `pilothouse up`, or `--url`.",
}

SCHEMA = "pilothouse.schema.json"


def responses() -> str:
    """What becomes of each field and each event of OpenAI's Responses protocol."""
    tables = {
        "Fields of a request": responses_reference.fields(),
        "Items of a conversation": responses_reference.kinds_of_items(),
        "Tools": responses_reference.kinds_of_tools(),
        "Fields of a function": responses_reference.fields_of_a_function(),
        "`include`": responses_reference.includes(),
        "Fields of a response": responses_reference.fields_of_an_answer(),
    }
    written = [RESPONSES_HEAD]
    for title, table in tables.items():
        written.append(f"## {title}\n\n| | what becomes of it |\n|---|---|")
        written.extend(f"| `{name}` | {fate} |" for name, fate in sorted(table.items()))
        written.append("")
    written.append("## Events of a stream\n\n| event | sent or not |\n|---|---|")
    written.extend(f"| {name} | {fate} |" for name, fate in sorted(responses_reference.events().items()))
    return "\n".join(written)


RESPONSES_HEAD = """\
# The Responses protocol

`POST /v1/responses`, `GET` and `DELETE /v1/responses/{id}`, and its `/input_items`. Tests compare each of \
these lists with the types of the published client.
"""


def openai() -> str:
    """What becomes of each field of OpenAI's protocol but Responses, which has a page of its own."""
    tables = {**reference.REQUESTS, **reference.ANSWERS}
    within = [OPENAI_WITHIN, *_tables(reference_parts.PARTS, "###")]
    return "\n".join([OPENAI_HEAD, *_tables(tables, "##"), *within, OPENAI_TAIL])


def _tables(tables: Mapping[str, reference_parts.Table], level: str) -> Iterator[str]:
    for title, table in tables.items():
        yield f"{level} {title[0].upper()}{title[1:]}\n\n| field | | |\n|---|---|---|"
        yield from (f"| `{name}` | {mark} | {note} |" for name, (mark, note) in table.items())
        yield ""


OPENAI_HEAD = """\
# OpenAI's protocol

OpenAI's clients work with an address, `http://HOST:PORT/v1`, and a key. `/v1/responses` has
[a page of its own](responses.md). A field that stands nowhere here is refused with 400 and the nearest name.

`yes` is carried or given as it is; `mapped` is said in other words; `dropped` changes no answer; `refused` is
501 with the field in `param`, but for null, which asks for nothing; `not given` never stands in an answer.
The names in brackets are the types of OpenAI's Python client: a test holds each table against them, and
against what is written.
"""
OPENAI_WITHIN = """\
## Within a chat

Here `refused` is 400 with the place in `param`. `response_format` is carried as it is, in all of its kinds.
`tool_choice` may also be `none`, `auto` or `required`.
"""
OPENAI_TAIL = """\
## Errors and ends

`{"error": {"message", "type", "param", "code"}}`; codes are in [errors](errors.md). A stream that fails sends
such an object as its last event, and no `data: [DONE]`. Where nothing happens it sends comments, which
clients pass over.
"""

PAGES = {
    "openai.md": openai,
    "commands.md": commands,
    "configuration.md": configuration,
    "metrics.md": metrics,
    "errors.md": error_codes,
    "engines.md": engines,
    "responses.md": responses,
}


def pages() -> dict[str, str]:
    """Every page as it should be, by file name."""
    written = {name: NOTE + write().rstrip() + "\n" for name, write in PAGES.items()}
    return {
        **written,
        SCHEMA: json.dumps(spec_schema(option_types(own_drivers())), indent=2, ensure_ascii=False) + "\n",
    }


def main() -> int:
    stale = []
    for name, text in pages().items():
        path = REFERENCE / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    for name in stale:
        print(("out of date: " if "--check" in sys.argv else "written: ") + f"docs/reference/{name}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
