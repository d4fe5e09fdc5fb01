"""
The gateway worker's process: `python -m pilothouse.app.worker`.

It decides whether the modules of the request path are compiled or interpreted
ones, before any of them is imported; what a worker is stands in `app.serving`.
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from pilothouse.app import compiled
from pilothouse.config import Settings
from pilothouse.kit.heap import keep_freed


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="pilothouse.app.worker", description=__doc__)
    parser.add_argument("--settings", required=True, help="file with the settings as JSON")
    parser.add_argument("--socket-fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--heartbeat-fd", type=int, required=True, help="inherited pipe of the supervisor")
    parser.add_argument("--ready-fd", type=int, default=-1, help="inherited pipe: told when it serves")
    parser.add_argument("--index", type=int, default=0, help="number of this worker, for its name")
    options = parser.parse_args(argv)
    keep_freed()
    settings = Settings.from_json(Path(options.settings).read_text())
    is_compiled = settings.compiled and compiled.prefer(compiled.default_folder())
    # By its name: an import above would have settled already what the modules are.
    importlib.import_module("pilothouse.app.serving").serve(
        settings,
        index=options.index,
        socket_fd=options.socket_fd,
        heartbeat_fd=options.heartbeat_fd,
        ready_fd=options.ready_fd,
        is_compiled=is_compiled,
    )


if __name__ == "__main__":
    main()
