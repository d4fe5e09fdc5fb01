"""
`python -m pilothouse.cli.resume`: what a supervisor executes to become the installed code.

No command for people (that is `pilothouse restart`). `--check` only says whether
the state on standard input is understood.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import click

from pilothouse import __version__
from pilothouse.app import handover
from pilothouse.cli import up
from pilothouse.domain.errors import PilothouseError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pilothouse.cli.resume", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether this code could take over")
    parser.add_argument("--handover-fd", type=int, default=-1, help="inherited pipe with the state")
    options = parser.parse_args(argv)
    is_json = False
    try:
        if options.check:
            handover.read(sys.stdin.buffer.read())
            print(__version__)
            return 0
        state = handover.take(options.handover_fd)
        is_json = state.is_json
        up.run_resumed(state)
    except PilothouseError as exc:
        error = {"error": {"code": exc.code, "message": exc.message}}
        click.echo(json.dumps(error) if is_json else f"error: {exc.message}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
