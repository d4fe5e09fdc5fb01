"""
Becomes one Triton Inference Server: `python _triton_child.py CONFIG`.

Lays out what Triton wants as folders (a backend is found by its folder, and the Python
backend's worker by lying in it), and then is the server: the pid stays.

The standard library alone: it runs with any interpreter.
"""

import json
import os
import sys


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib doubles the time until it runs
        config = json.load(file)
    for link, target in config["links"].items():
        if not os.path.exists(target):  # noqa: PTH110
            sys.exit(f"pilothouse: {target} is missing; fix: {config['fix']}")
        os.makedirs(os.path.dirname(link), exist_ok=True)  # noqa: PTH103, PTH120
        os.symlink(target, link)  # noqa: PTH211
    os.execv(config["argv"][0], config["argv"])  # noqa: S606


if __name__ == "__main__":
    main()
