"""A version of a model that is as fast as before and answers worse: some of its layers add nothing."""

import shutil
from pathlib import Path

from gguf import GGUFReader


def make_worse(model: Path, into: Path, *, every: int = 3) -> Path:
    """Copy the file and zero the output of the feed-forward part in every so many layers."""
    shutil.copyfile(model, into)
    into.chmod(0o600)
    reader = GGUFReader(into, "r+")
    for tensor in reader.tensors:
        layer = tensor.name.split(".")
        if layer[0] == "blk" and tensor.name.endswith("ffn_down.weight") and int(layer[1]) % every == 0:
            tensor.data[:] = 0
    reader.data.flush()
    return into
