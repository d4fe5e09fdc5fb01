"""The command line with stand-ins for its children: `pilothouse_up.py WORKER_ROLE ARGUMENTS...`."""

import sys
from pathlib import Path

from pilothouse.app.handover import Programs
from pilothouse.cli import up
from pilothouse.cli.main import main

CHILD = str(Path(__file__).with_name("child.py"))
worker = sys.argv[1]
up.Programs = lambda: Programs(controller=(CHILD, "controller"), worker=(CHILD, worker))  # type: ignore[assignment,misc]
main(sys.argv[2:])
