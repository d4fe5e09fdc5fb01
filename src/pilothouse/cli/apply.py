"""
`pilothouse apply` and `diff`: from a spec file to what runs, with the changes shown first.

What a change means is decided by the server. The one idea: a file that was made
from an older revision is refused, for it would undo what others changed since.
"""

import json
import sys
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from pilothouse.cli.client import Json, Server
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.settle import wait_for, wait_options
from pilothouse.cli.text import moment
from pilothouse.config import SPEC_BYTES, SpecFile, join_faults, read_spec_file
from pilothouse.domain.errors import Conflict, InvalidRequest, OperationFailed
from pilothouse.domain.spec import Spec
from pilothouse.domain.specdiff import Change, changes

PATH = "/admin/v1/spec"
_MARKS = {"added": ("+", "green"), "changed": ("~", "yellow"), "removed": ("-", "red")}


class Declared(Struct, frozen=True, kw_only=True):
    """What the server answers about a spec, as far as it matters here."""

    revision: int
    author: str
    time: float
    spec: Json
    changes: list[Change] = []
    warnings: list[str] = []


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be applied."""

    spec: object
    file: SpecFile | None = None

    def located(self, error: InvalidRequest) -> InvalidRequest:
        """The server's refusal with lines and columns of the file."""
        if self.file is None or not error.faults:
            return error
        return InvalidRequest(join_faults([self.file.located(fault) for fault in error.faults]))


@click.command()
@click.option("-f", "--file", "path", metavar="FILE", help="Spec file; - reads standard input.")
@click.option("--revision", type=click.IntRange(1), metavar="N", help="Instead: go back to this revision.")
@click.option("--dry-run", is_flag=True, help="Check it and show what would change.")
@click.option("--force", is_flag=True, help="Also a file that was made from an older revision.")
@wait_options
@client_command
def apply(
    reach: Reach,
    path: str | None,
    *,
    revision: int | None,
    dry_run: bool,
    force: bool,
    wait: bool,
    timeout: str,
) -> None:
    """
    Declare what runs: all of FILE, and nothing else.

    Shows what changes, field by field. A file that `pilothouse spec` wrote names
    its revision in the first line: when another one runs by now, it is refused.
    What runs goes on running when a spec is refused.

    \b
    Example:
      pilothouse apply -f pilothouse.yaml --dry-run
      pilothouse apply -f pilothouse.yaml --wait
      pilothouse apply --revision 3
    """
    if (path is None) == (revision is None):
        raise InvalidRequest("say what to apply: -f FILE, or --revision N")
    server = reach.server()
    present = server.fetch(PATH, Declared)
    wanted = (
        _from_file(path) if path else Wanted(spec=server.fetch(f"{PATH}/revisions/{revision}", Declared).spec)
    )
    made_from = wanted.file.revision if wanted.file else None
    if made_from is not None and made_from != present.revision and not force:
        _refuse_outdated(present, wanted, made_from)
    checked = _put(server, wanted, present.revision, dry_run=True)
    show_changes(reach.out, checked.changes)
    for warning in checked.warnings:
        reach.out.line(f"warning: {warning}", style="yellow")
    applied = checked
    if not dry_run and checked.changes:
        applied = _put(server, wanted, present.revision, dry_run=False)
        reach.out.line(f"revision {applied.revision}")
    if reach.out.is_json:
        body = {"revision": applied.revision, "dry_run": dry_run, "changes": checked.changes}
        reach.out.json({**body, "warnings": checked.warnings})
    if wait and not dry_run:
        wait_for(reach.out, server, applied.revision, timeout=timeout)


@click.command()
@click.option(
    "-f", "--file", "path", metavar="FILE", required=True, help="Spec file; - reads standard input."
)
@client_command
def diff(reach: Reach, path: str) -> None:
    """
    Show how FILE differs from what runs; changes nothing.

    \b
    Example:
      pilothouse diff -f pilothouse.yaml
    """
    wanted = read_file(path)
    present = reach.server().fetch(PATH, Declared)
    found = changes(known_spec(present.spec), wanted.spec)
    show_changes(reach.out, found)
    if reach.out.is_json:
        reach.out.json({"revision": present.revision, "changes": found})


def show_changes(out: Output, found: list[Change]) -> None:
    """One a line, as in a diff; nothing with `--json`."""
    if not found:
        out.line("nothing changes")
    for change in found:
        mark, style = _MARKS[change.kind]
        before, after = _shown(change.before), _shown(change.after)
        value = f"{before} -> {after}" if change.kind == "changed" else after if mark == "+" else before
        out.line(f"{mark} {change.path}: {value}", style=style)


def read_file(path: str) -> SpecFile:
    """
    Raises:
        OperationFailed: It cannot be read.
        InvalidRequest: It is not a spec; with line and column.
    """
    try:
        if path == "-":
            return read_spec_file(sys.stdin.buffer.read(SPEC_BYTES + 1), name="standard input")
        with Path(path).open("rb") as file:
            return read_spec_file(file.read(SPEC_BYTES + 1), name=path)
    except OSError as exc:
        raise OperationFailed(f"cannot read {path}: {exc.strerror}. fix: name a spec file") from exc


def known_spec(spec: object) -> Spec:
    """
    Raises:
        OperationFailed: It has what this version does not know.
    """
    try:
        return msgspec.convert(spec, Spec)
    except msgspec.ValidationError as exc:
        raise OperationFailed(
            f"the server runs what this version cannot write: {exc}. "
            "fix: use the command line of the server's version"
        ) from exc


def _from_file(path: str) -> Wanted:
    file = read_file(path)
    return Wanted(spec=file.spec, file=file)


def _refuse_outdated(present: Declared, wanted: Wanted, made_from: int) -> None:
    if wanted.file is not None and known_spec(present.spec) == wanted.file.spec:
        return
    raise Conflict(
        f"the file was made from revision {made_from}, but revision {present.revision} runs, declared by "
        f"{present.author or 'nobody known'} at {moment(present.time)}: applying it would undo that. "
        "fix: see pilothouse diff and pilothouse get revisions, make the change in a new pilothouse spec, "
        "or use --force"
    )


def _put(server: Server, wanted: Wanted, expected: int, *, dry_run: bool) -> Declared:
    try:
        answer = server.call(
            "PUT",
            PATH,
            query={"dry_run": "true" if dry_run else None},
            body=wanted.spec,
            headers={"if-match": f'"{expected}"'},
        )
    except InvalidRequest as exc:
        raise wanted.located(exc) from exc
    return msgspec.convert(answer, Declared, strict=False)


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
