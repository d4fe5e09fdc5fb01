"""
The process that reads a model's folder: `python -m pilothouse.app.inspect_folder PATH`.

As `inspect_model`: it prints what `config.json` and the tensors' headers say, and the
files' size; the graph of a SavedModel is judged. Nothing that it reads is loaded here.
"""

import sys
from collections import Counter
from pathlib import Path

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.hf_model import Weights, read_config
from pilothouse.domain.model import ModelFormat, ModelHeader
from pilothouse.domain.saved_model import check_graph
from pilothouse.kit import safetensors
from pilothouse.kit.bounded import MAX_OUTPUT_BYTES, REFUSED_STATUS, limit_self

MEMORY_BYTES = 512 * 1024 * 1024
CPU_S = 20
MAX_CONFIG_BYTES = 1024 * 1024
MAX_FILES = 256
MAX_GRAPH_BYTES = 128 * 1024 * 1024


class Inspected(Struct, frozen=True):
    header: ModelHeader
    bytes: int


def main(arguments: list[str]) -> int:
    limit_self(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=MAX_OUTPUT_BYTES)
    try:
        found = inspect(Path(arguments[0]))
    except (ModelFileRefused, safetensors.SafetensorsError, OSError, msgspec.DecodeError) as exc:
        sys.stderr.write(f"{exc}\n")
        return REFUSED_STATUS
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


def inspect(folder: Path) -> Inspected:
    """
    Raises:
        ModelFileRefused: No safetensors, too many, or no configuration.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files and (found := _of_graph(folder)):
        return found
    if not 0 < len(files) <= MAX_FILES:
        raise ModelFileRefused(
            f"{folder} holds {len(files)} .safetensors files; a model has 1 to {MAX_FILES}"
        )
    elements, types = 0, Counter[str]()
    for file in files:
        for span in safetensors.read(file).values():
            elements += span.bytes // safetensors.ELEMENT_BYTES[span.dtype]
            types[span.dtype] += span.bytes
    if not elements:
        raise ModelFileRefused(f"the files in {folder} hold no weights")
    header = read_config(
        _document(folder / "config.json"), Weights(elements=elements, bytes_by_type=dict(types))
    )
    return Inspected(header, sum(file.stat().st_size for file in files))


def _of_graph(folder: Path) -> Inspected | None:
    """Graphs say little: what is beside them does, and their options say the rest."""
    kinds: dict[str, ModelFormat] = {"**/*.onnx": "onnx", "**/saved_model.pb": "savedmodel"}
    for pattern, kind in kinds.items():
        if graphs := list(folder.glob(pattern)):
            if kind == "savedmodel":
                _check_saved_models(graphs)
            config = _document(folder / "config.json")
            longest = config.get("max_position_embeddings")
            pooling = _document(folder / "1_Pooling" / "config.json")
            header = ModelHeader(
                architecture=kind,
                context_tokens=longest if isinstance(longest, int) and longest > 0 else 0,
                quantization="",
                parameters=0,
                pooling=next((name for name, mode in _POOLING.items() if pooling.get(mode) is True), ""),
            )
            return Inspected(header, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
    return None


_POOLING = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
"""As sentence-transformers writes them; a folder that has one is of vectors."""


def _document(path: Path) -> dict[str, object]:
    """What a small JSON file beside a graph says; nothing where it is not there."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return {}
    if len(text) > MAX_CONFIG_BYTES:
        raise ModelFileRefused(f"{path.name} is over {MAX_CONFIG_BYTES} bytes")
    return msgspec.json.decode(text, type=dict[str, object])


def _check_saved_models(graphs: list[Path]) -> None:
    if len(graphs) != 1:
        raise ModelFileRefused(f"the folder holds {len(graphs)} files saved_model.pb: keep one version in it")
    with graphs[0].open("rb") as file:
        content = file.read(MAX_GRAPH_BYTES + 1)
    if len(content) > MAX_GRAPH_BYTES:
        raise ModelFileRefused(f"saved_model.pb is over {MAX_GRAPH_BYTES} bytes: weights belong in variables")
    check_graph(content)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
