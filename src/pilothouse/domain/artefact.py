"""
A model version as an OCI artefact: its media types and its config document.

Pure. The weights are the one layer; the config says what the registry knows of
them, so that an import is told the same and believes only the digests.
"""

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.model import Lineage, ModelVersion

ARTIFACT_TYPE = "application/vnd.pilothouse.model.v1"
CONFIG_TYPE = "application/vnd.pilothouse.model.config.v1+json"
LAYER_TYPE = "application/vnd.pilothouse.model.layer.v1.gguf"


class ModelConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The config document. What is measured anew at an import (size, context, architecture) is not in it."""

    name: str
    version: str
    format: str = "gguf"
    licence: str = ""
    source: str = ""
    source_digest: str = ""
    lineage: Lineage = Lineage()
    card: str = ""


def write_config(model: ModelVersion) -> bytes:
    config = ModelConfig(
        name=model.name,
        version=model.version,
        licence=model.licence,
        source=model.source,
        source_digest=model.source_digest,
        lineage=model.lineage,
        card=model.card,
    )
    return msgspec.json.encode(config)


def read_config(content: bytes) -> ModelConfig:
    """
    Raises:
        ModelFileRefused: It is no config of a model.
    """
    try:
        return msgspec.json.decode(content, type=ModelConfig)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ModelFileRefused(f"its config is not that of a model: {exc}") from exc
