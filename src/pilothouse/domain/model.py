"""What is known of a model file: read from its header and its source, never guessed."""

from typing import Literal

from msgspec import Struct

ModelFormat = Literal["gguf", "safetensors", "onnx", "savedmodel"]
"""All but GGUF are folders."""


class ModelHeader(Struct, frozen=True, kw_only=True):
    """Facts from a GGUF header (the GGUF specification, version 3)."""

    architecture: str
    context_tokens: int
    quantization: str
    parameters: int
    """Sum of the elements of all tensors."""
    layers: int = 0
    embedding_length: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    chat_template: str = ""
    pooling: str = ""
    """Not empty: the model embeds and does not generate."""
    tokens: int = 0
    """Size of the vocabulary."""
    licence: str = ""
    """What the file itself says, if it says."""
    experts: int = 0
    """Of a mixture of experts: a token passes only a few of them. 0 is a dense model."""


class Lineage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a version comes from; empty for one that came from outside."""

    parent: str = ""
    """`name@version` of the model it was made from."""
    job: str = ""
    """Id of the job that made it."""
    dataset: str = ""
    """`name@version` of the data it was trained on."""
    evaluation: str = ""
    """Id of the evaluation that it passed."""


class ModelVersion(Struct, frozen=True, kw_only=True):
    """One immutable model. `digest` is `sha256:<hex>` of the file, or of a folder's manifest."""

    name: str
    version: str
    """The source's own where it has versions, else the first digits of the digest."""
    digest: str
    format: ModelFormat
    bytes: int
    quantization: str
    context_tokens: int
    licence: str
    source: str
    source_digest: str
    """Digest of what the source delivered: the wheel or file before anything was taken out or converted."""
    header: ModelHeader
    created_at: float
    lineage: Lineage = Lineage()
    card: str = ""
    """What people wrote about it, in Markdown."""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


class Artifact(Struct, frozen=True, kw_only=True):
    """A verified model on this machine, ready to be loaded: a GGUF file, or a folder of the other formats."""

    name: str
    digest: str
    path: str
    bytes: int
    header: ModelHeader
    format: ModelFormat = "gguf"
