"""
A model that two processes share: the same answer as one process, and what each of them holds.

PyTorch's own tensor parallelism and its fully sharded data parallelism (FSDP2), by gloo on processors.
The three runs read the same files; each process says what it holds and what it computed.

    python bench/parallel.py [--quick] [--json] [--ranks N] [--model FOLDER]

FOLDER is a Llama as safetensors; by default one of random weights is made.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from build import BUILD
from pilothouse.adapters.engines._environment import python_of
from rig.report import Figure, Report, options, publish, tell

RANKS = Path(__file__).parent / "rig" / "ranks.py"
RUN_S = 600.0
SAME = 0.001
"""Sums that are added up in another order differ by so much in 32 bits; the logits are about 1."""


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--ranks", type=int, default=2, help="processes that share the model")
    parser.add_argument("--model", default="", help="folder of a Llama, instead of a made one")
    given = parser.parse_args()
    python = next(
        (python_of(name) for name in ("vllm", "transformers") if Path(python_of(name)).exists()), ""
    )
    if not python:
        sys.exit("no engine with torch is installed: pilothouse engine install transformers")
    folder = Path(given.model) if given.model else _made(python, layers=4 if given.quick else 16)
    (alone,) = run(python, "one", folder, ranks=1)
    figures = _figures("one process", [alone], alone)[:-1]
    for mode, name in (("tensor", "tensor parallel"), ("fsdp", "FSDP2")):
        tell(name)
        shared = run(python, mode, folder, ranks=given.ranks)
        figures += _figures(f"{name}, {given.ranks} processes", shared, alone)
    report = Report(
        bench="parallel: one model in several processes, PyTorch on processors",
        method=(
            f"a Llama of {alone['layers']} layers in 32 bits, one thread a process, gloo on "
            "loopback; 12 greedy tokens after 32, the same ones in every run or the difference is infinite; "
            "memory is what a process held at most beside what it held before the model, the pages of the "
            "files that it read included"
        ),
        peer="the same weights in one process",
        figures=figures,
    )
    publish(report, given)


def _made(python: str, *, layers: int) -> Path:
    folder = BUILD / f"llama-{layers}"
    if not (folder / "model.safetensors").exists():
        subprocess.run([python, "-I", str(RANKS), "make", str(folder), str(layers)], check=True)
    return folder


def run(python: str, mode: str, folder: Path, *, ranks: int) -> list[dict[str, Any]]:
    """
    Let so many processes answer together; what each found.

    Raises:
        RuntimeError: One of them failed; the message has its last words.
    """
    with TemporaryDirectory(prefix="ph-ranks-") as place:
        processes = [_begun(python, mode, folder, Path(place), rank, ranks) for rank in range(ranks)]
        try:
            statuses = [process.wait(RUN_S) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if any(statuses):
            said = [Path(f"{place}/{rank}.log").read_text()[-1000:] for rank in range(ranks)]
            raise RuntimeError(f"{mode}: {' '.join(said)}")
        return [json.loads(Path(f"{place}/{rank}").read_text()) for rank in range(ranks)]


def _begun(
    python: str, mode: str, folder: Path, place: Path, rank: int, ranks: int
) -> "subprocess.Popen[bytes]":
    env = {"RANK": str(rank), "WORLD_SIZE": str(ranks), "GLOO_SOCKET_IFNAME": "lo", "PATH": os.defpath}
    argv = [python, "-I", str(RANKS), mode, str(folder), str(place / "store"), str(place / str(rank))]
    with (place / f"{rank}.log").open("w") as log:
        return subprocess.Popen(argv, env=env, stdout=log, stderr=log)


def apart(shared: list[dict[str, Any]], alone: dict[str, Any]) -> float:
    """The largest difference of a logit between any of them and the one; infinite where tokens differ."""
    if any(one["tokens"] != alone["tokens"] for one in shared):
        return math.inf
    return max(abs(a - b) for one in shared for a, b in zip(one["logits"], alone["logits"], strict=True))


def _figures(name: str, shared: list[dict[str, Any]], alone: dict[str, Any]) -> list[Figure]:
    most = max(shared, key=lambda one: one["peak_bytes"])
    return [
        Figure(what=f"{name}: parameters that one holds", value=most["parameter_bytes"] / 1e6, unit="MB"),
        Figure(what=f"{name}: memory of one, at most", value=most["peak_bytes"] / 1e6, unit="MB"),
        Figure(what=f"{name}: a token", value=1000 * most["token_s"], unit="ms"),
        Figure(what=f"{name}: largest difference of a logit", value=apart(shared, alone), goal=f"<= {SAME}"),
    ]


if __name__ == "__main__":
    main()
