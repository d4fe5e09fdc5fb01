"""
Source `oci:/path`: a model version that was exported as an OCI image layout, a tar or a folder.

What the artefact says of itself is taken along (name, version, licence, card,
lineage); what it holds is believed by its digests alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilothouse.adapters.sources._disk import (
    FreeBytes,
    chunks_of,
    disk_failure,
    free_bytes,
    require_room,
    write_chunks,
)
from pilothouse.domain.artefact import CONFIG_TYPE, LAYER_TYPE, ModelConfig, read_config
from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound
from pilothouse.domain.model_file import HEAD_BYTES, MAX_MODEL_BYTES, another_file, why_not_gguf
from pilothouse.domain.model_name import clean_name
from pilothouse.kit.oci import Descriptor, Layout, LayoutBroken, open_layout
from pilothouse.ports.source import Fetched, Identity, Progress


class OciSource:
    scheme = "oci"

    def __init__(self, *, free: FreeBytes = free_bytes) -> None:
        self._free = free

    def identify(self, reference: str) -> Identity:
        """The artefact's own name and version, for they are at its beginning; else its file's name."""
        path = _path(reference)
        try:
            with _opened(path) as layout:
                config = _config(layout)
        except (ModelFileRefused, NotFound):
            return Identity(name=clean_name(path.stem))  # `fetch` says what is wrong with it
        return Identity(name=clean_name(config.name), version=config.version)

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        path = _path(reference)
        with _opened(path) as layout:
            config, layer = _config(layout), _layer(layout)
            if expect and layer.digest != expect:
                raise another_file(str(path), found=layer.digest, expected=expect)
            if layer.size > MAX_MODEL_BYTES:
                raise ModelFileRefused(
                    f"{path} holds {layer.size} bytes; at most {MAX_MODEL_BYTES} are accepted"
                )
            with layout.blob(layer) as file:
                if fault := why_not_gguf(file.read(HEAD_BYTES)):
                    raise ModelFileRefused(f"the layer of {path} is {fault}")
            require_room(workdir, layer.size, path.name, free=self._free)
            target = workdir / "model.gguf"
            with layout.blob(layer) as file:
                digest = write_chunks(
                    chunks_of(file), target, size_bytes=layer.size, what=path.name, progress=progress
                )
        if digest != layer.digest:
            target.unlink()
            raise another_file(f"the layer of {path}", found=digest, expected=layer.digest)
        return Fetched(
            path=target,
            source_digest=digest,
            licence=config.licence,
            card=config.card,
            lineage=config.lineage,
        )


@contextmanager
def _opened(path: Path) -> Iterator[Layout]:
    try:
        with open_layout(path) as layout:
            yield layout
    except LayoutBroken as exc:
        raise ModelFileRefused(f"{path} is not a model as an OCI image layout: {exc}") from exc
    except FileNotFoundError as exc:
        raise NotFound(f"there is no file {path}") from exc
    except OSError as exc:
        raise disk_failure(f"reading {path}", exc) from exc


def _config(layout: Layout) -> ModelConfig:
    config = layout.manifest.config
    if config.mediaType != CONFIG_TYPE:
        raise ModelFileRefused(
            f"the artefact is of another kind: its config is {config.mediaType[:100]!r}, not {CONFIG_TYPE}"
        )
    return read_config(layout.document(config))


def _layer(layout: Layout) -> Descriptor:
    layers = layout.manifest.layers
    if len(layers) != 1 or layers[0].mediaType != LAYER_TYPE:
        raise ModelFileRefused(f"the artefact needs one layer of {LAYER_TYPE}; it has {len(layers)} layers")
    return layers[0]


def _path(reference: str) -> Path:
    if "\0" in reference or not reference.startswith("/") or reference.startswith("//"):
        raise InvalidRequest(
            f"oci:{reference[:100]!r} is not a path: write oci:/path/to/model.tar", param="source"
        )
    return Path(reference)
