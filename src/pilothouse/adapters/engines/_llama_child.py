"""
The process of one llama.cpp replica: `python -m pilothouse.adapters.engines._llama_child`.

Belongs here: turning a small configuration into llama.cpp's parameters, each of
which is set for a reason. Does not: sizes, which `domain.sizing` chose, and the
process's life, which its target watches. It knows nothing of Pilothouse and goes
on when that restarts; TERM ends it at once, for it holds nothing worth saving.

Only the standard library, the log and xllamacpp are imported, for a start is waited for.
"""

import argparse
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pilothouse.kit.ringlog import capture

CANNOT_LOAD_STATUS = 3
SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
"""llama.cpp's numbers."""
WRITE_TIMEOUT_S = 120
"""A reader that takes nothing for so long loses its answer; the gateway's own limit is shorter."""


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama_child", description="One replica of llama.cpp's server.")
    parser.add_argument("--replica", required=True, help="name, so that the process can be found")
    parser.add_argument("--home-id", required=True, help="whose replica it is, likewise")
    parser.add_argument("--socket", required=True, help="path of the private socket")
    parser.add_argument("--config", required=True, help="JSON file, see `parameters`")
    parser.add_argument("--log", required=True, help="path of the log")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(argv)
    capture(Path(options.log))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A core file would hold people's prompts.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        config = json.loads(Path(options.config).read_bytes())
        server = serve(config, options.socket)
    except Exception as exc:  # noqa: BLE001 - the process ends here; the log's reader is told why
        say(f"the engine cannot start, is the model file whole? {type(exc).__name__}: {exc}")
        os._exit(CANNOT_LOAD_STATUS)  # its native threads may be in any state: no destructor is to be trusted
    say(f"ready at {options.socket}")
    while server is not None:
        signal.pause()


def serve(config: dict[str, Any], socket: str) -> object:
    """Load the model and serve it; returns when requests are answered. The server ends with its owner."""
    # Imported here so that a broken installation is told in the log like any other failure.
    import xllamacpp  # noqa: PLC0415

    return xllamacpp.Server(parameters(xllamacpp.CommonParams(), config, socket))


def parameters(params: Any, config: dict[str, Any], socket: str) -> Any:
    """
    Set llama.cpp's parameters.

    Args:
        params: A `CommonParams`.
        config: `model_path`, `model_name`, `slots`, `context_tokens` (of one slot),
            `threads`, `batch_tokens`, `embeds`, `split_mode`, `tensor_split`, `main_gpu`.
    """
    slots = config["slots"]
    params.model.path = config["model_path"]
    params.model_alias = {config["model_name"]}  # else every answer names the path
    params.hostnames = [socket]
    params.n_threads_http = 2 * slots + 8  # an idle kept connection holds one, and probes need theirs

    # Divided among the slots, for the cache is not unified.
    params.n_ctx = slots * config["context_tokens"]
    params.n_parallel = slots
    params.cpuparams.n_threads = config["threads"]
    params.cpuparams_batch.n_threads = config["threads"]
    # A cancel is seen between two batches, and all other streams wait for one.
    params.n_batch = params.n_ubatch = config["batch_tokens"]

    # Among GPUs, where there are some. Never among machines: its RPC has no lock.
    params.split_mode = SPLIT_MODES[config["split_mode"]]
    params.main_gpu = config["main_gpu"]
    if shares := config["tensor_split"]:
        params.tensor_split = [*shares, *([0.0] * (len(params.tensor_split) - len(shares)))]

    # Slots belong to tenants: no prompt of one may make another's faster, or be kept aside.
    params.kv_unified = False
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.slot_prompt_similarity = 0.0
    params.n_cache_reuse = 0
    params.n_ctx_checkpoints = 0

    # Nothing is forgotten in silence, and nothing resized behind the plan's back.
    params.ctx_shift = False
    params.fit_params = False

    # What is not used is off. The socket's folder, closed to others, is the real lock.
    params.ui = False
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.endpoint_props = False
    params.slot_save_path = ""
    params.offline = True
    params.timeout_write = WRITE_TIMEOUT_S
    params.embedding = config["embeds"]
    return params


def say(line: str) -> None:
    sys.stdout.write(f"pilothouse: {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
