"""
Models that are folders: which files belong to one, what is refused, and its digest.

Belongs here: names and small documents. Does not: reading folders. The one idea is
that of `model_file`: an allow-list. A file that can carry code is refused with what
it is; one that nobody knows is refused too, and never left behind in silence.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.model import ModelFormat

MAX_FILES = 4096
_PICKLE = "a Python pickle or may hold one, which runs code when it is loaded: convert it to safetensors"
_CODE = "code, and a model's own code is never run: take it out of the folder"
_REFUSED = (
    dict.fromkeys(
        (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".mar"), _PICKLE
    )
    | dict.fromkeys((".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe", ".js", ".jar"), _CODE)
    | dict.fromkeys((".h5", ".hdf5", ".keras"), "a Keras or HDF5 file, which can run code when it is loaded")
)
_TAKEN = frozenset(
    {
        ".safetensors",
        ".json",
        ".txt",
        ".model",
        ".jinja",
        ".md",
        ".tiktoken",
        ".vocab",
        ".merges",
        ".fingerprint",
    }
    | {".onnx", ".onnx_data", ".data", ".pb", ".pbtxt", ".index"}
)
_TAKEN_NAMES = frozenset({"licence", "license", "notice", "readme", "use_policy"})
_CONFIGS = frozenset(
    {"config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"}
)


class FolderFile(Struct, frozen=True):
    path: str
    """Relative, with slashes."""
    digest: str
    bytes: int


class Manifest(Struct, frozen=True):
    """All files of a folder, by path: its digest stands for every byte in it."""

    files: tuple[FolderFile, ...]
    pilothouse_folder: int = 1

    def encoded(self) -> bytes:
        return msgspec.json.encode(Manifest(tuple(sorted(self.files, key=lambda file: file.path))))

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.encoded()).hexdigest()}"

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def is_ignored(path: str) -> bool:
    """Notes of tools, such as `.git`: never part of a model."""
    return any(part.startswith(".") for part in path.split("/"))


def why_not_taken(path: str) -> str | None:
    """Words that complete "the file is ..."; None for a file that belongs to a model."""
    name = _name(path).lower()
    suffix = "." + name.rpartition(".")[2]
    if suffix in _REFUSED:
        return _REFUSED[suffix]
    if suffix in _TAKEN or name in _TAKEN_NAMES or name.startswith("variables.data-"):
        return None
    return f"none that belongs to a model as far as is known (such are {', '.join(sorted(_TAKEN))})"


def format_of(paths: Iterable[str]) -> ModelFormat:
    """
    Raises:
        ModelFileRefused: There are no weights, or those of two formats.
    """
    names = list(map(_name, paths))
    found: dict[ModelFormat, bool] = {
        "safetensors": any(name.endswith(".safetensors") for name in names),
        "onnx": any(name.endswith(".onnx") for name in names),
        "savedmodel": "saved_model.pb" in names,
    }
    formats = [name for name, is_there in found.items() if is_there]
    if len(formats) == 1:
        return formats[0]
    if formats:
        raise ModelFileRefused(
            f"the folder holds weights as {' and as '.join(formats)}: keep one of them in it"
        )
    raise ModelFileRefused("the folder holds no weights: no .safetensors, no .onnx and no saved_model.pb")


def refuse_own_code(path: str, content: bytes) -> None:
    """
    Look into a configuration for what would have an engine run the model's own code.

    Raises:
        ModelFileRefused: It names some, or cannot be read.
    """
    if _name(path) not in _CONFIGS:
        return
    try:
        config = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ModelFileRefused(f"{path} is no JSON that can be read: {exc}") from exc
    if place := _own_code(config, depth=8):
        raise ModelFileRefused(
            f"{path} has {place}: the model wants code of its own to be run, and that is never done. Use a "
            "model of an architecture that engines know"
        )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _own_code(value: Any, *, depth: int) -> str:
    if not depth:
        return ""
    if isinstance(value, Mapping):
        if "auto_map" in value:
            return "auto_map"
        return next((found for one in value.values() if (found := _own_code(one, depth=depth - 1))), "")
    if isinstance(value, list):
        return next((found for one in value if (found := _own_code(one, depth=depth - 1))), "")
    return ""
