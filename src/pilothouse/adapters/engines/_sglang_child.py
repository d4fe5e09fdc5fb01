"""
The process of one replica of SGLang: `python _sglang_child.py CONFIG`.

SGLang takes its key as an argument alone, and arguments can be read by everybody:
so they are put together here, from a file that only its owner can read. Its own
processes import this file anew and must find nothing to do in it.

Only SGLang's environment is there: nothing of Pilothouse is imported.
"""

import json
import runpy
import sys


def arguments(config: dict[str, object]) -> list[str]:
    """
    Args:
        config: `arguments`, and `key`.
    """
    told = config["arguments"]
    if not isinstance(told, list):
        raise TypeError("arguments must be a list")
    return [*map(str, told), "--api-key", str(config["key"])]


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - it needs no pathlib
        config = json.load(file)
    sys.argv = ["sglang.launch_server", *arguments(config)]
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
