"""
The process that reads a model file's header: `python -m pilothouse.app.inspect_model PATH`.

It prints the header as JSON, or ends with `REFUSED_STATUS` and the reason on
standard error. The one idea: no process that holds keys or serves requests ever
parses a file from elsewhere. Engines crashed on such headers before.
"""

import sys
from pathlib import Path

import msgspec

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.gguf_model import read_model
from pilothouse.domain.model_file import HEAD_BYTES, why_not_gguf
from pilothouse.kit import gguf
from pilothouse.kit.bounded import MAX_OUTPUT_BYTES, REFUSED_STATUS, limit_self

MEMORY_BYTES = 512 * 1024 * 1024
CPU_S = 20


def main(arguments: list[str]) -> int:
    limit_self(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=MAX_OUTPUT_BYTES)
    try:
        header = inspect(Path(arguments[0]))
    except (ModelFileRefused, gguf.GgufError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return REFUSED_STATUS
    sys.stdout.buffer.write(header)
    return 0


def inspect(path: Path) -> bytes:
    """The header of a model file as JSON."""
    with path.open("rb") as file:
        fault = why_not_gguf(file.read(HEAD_BYTES))
    if fault:
        raise ModelFileRefused(f"the file is {fault}")
    return msgspec.json.encode(read_model(gguf.read(path)))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
