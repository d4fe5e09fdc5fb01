"""
The process of one replica of vLLM: `python _vllm_child.py PREFIX ARGUMENTS`, those of its server.

Its processes share memory by Python's `multiprocessing`, which calls each piece by
chance; what was killed at once leaves them, and nobody can tell whose they were. So
they are called here as the target wants it, which removes them. Its other processes
are made from this one, or import this file anew: it holds for them too.

Only vLLM's environment is there: nothing of Pilothouse is imported.
"""

import runpy
import secrets
import sys
from multiprocessing import shared_memory
from pathlib import Path

SERVER = "vllm.entrypoints.openai.api_server"
FILE = Path("shared_memory_prefix")
"""In the working folder, for a process that imports this file anew has no other word of ours."""


if __name__ == "__main__":
    FILE.write_text(sys.argv.pop(1), encoding="utf-8")
if __name__ in ("__main__", "__mp_main__"):
    prefix = FILE.read_text(encoding="utf-8")
    shared_memory._make_filename = lambda: f"/{prefix}{secrets.token_hex(8)}"  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
if __name__ == "__main__":
    runpy.run_module(SERVER, run_name="__main__")
