"""
Ollama's model store, read as a spec: its files are served where they lie.

Layout: `manifests/<host>/<namespace>/<model>/<tag>` holds an OCI manifest, whose
layers lie in `blobs/sha256-<hex>`. Layers that change what a model says (an
adapter) make it another model, which is not carried rather than served without.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from pilothouse.domain.options import EngineOptions, written
from pilothouse.domain.spec import DeploymentSpec, EndpointSpec, ModelSpec, RouteSpec
from pilothouse.wire.imports.carried import Carried, Fields, free_name

MEDIA = "application/vnd.ollama.image."
PUBLIC = "registry.ollama.ai"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NOTES = {
    "template": "prompts are laid out by the template in the model file, not by Ollama's",
    "system": "a system prompt of the model: let clients send it",
    "messages": "messages that came with the model: let clients send them",
    "projector": "its reader of images: text only",
}

Blob = Callable[[str], object]
"""The parsed JSON of a blob by its digest; None where it is missing or no JSON."""


def read(manifests: Mapping[str, object], blob: Blob, *, blobs_folder: str) -> Carried:
    """
    Args:
        manifests: Parsed manifests by their path below `manifests/`.
        blobs_folder: Absolute path of the store's `blobs`.
    """
    carried = Carried()
    for path in sorted(manifests):
        _model(path, manifests[path], blob, blobs_folder, carried)
    return carried


def _model(path: str, manifest: object, blob: Blob, blobs_folder: str, carried: Carried) -> None:
    name = _called(path)
    if name is None:
        carried.note(path, "not a manifest's place: HOST/NAMESPACE/MODEL/TAG")
        return
    fields = Fields(manifest, name, carried)
    layers: dict[str, str] = {}
    for layer in fields.items("layers"):
        kind, digest = layer.text("mediaType").removeprefix(MEDIA), layer.text("digest")
        if not _DIGEST.fullmatch(digest):
            carried.note(name, f"its {kind[:40]} has no sha256 digest: it was left out")
            return
        layers.setdefault(kind, digest)
    if "model" not in layers:
        carried.note(name, "no model file in its manifest: it runs in Ollama's cloud, or is broken")
        return
    if "adapter" in layers:
        carried.note(name, "it has an adapter, and without it it is another model: it was left out")
        return
    for kind in layers:
        if kind in _NOTES:
            carried.note(f"{name}: {kind}", _NOTES[kind])
    options = EngineOptions()
    if "params" in layers:
        params = Fields(blob(layers["params"]), f"{name}: params", carried)
        options = EngineOptions(context_tokens=params.whole("num_ctx"))
        params.take("stop")  # the model file says where an answer ends
        params.rest("a default of the request: let clients send it")
    ours = free_name(name.removesuffix(":latest"), carried.models)
    file = f"{blobs_folder}/{layers['model'].replace(':', '-')}"
    carried.models[ours] = ModelSpec(source=f"file:{file}")
    carried.deployments[ours] = DeploymentSpec(model=ours, engine_options=written(options))
    aliases = {name, name.removesuffix(":latest")} - {ours}
    carried.endpoints[ours] = EndpointSpec(
        routes=[RouteSpec(deployment=ours)], aliases=tuple(sorted(aliases))
    )


def _called(path: str) -> str | None:
    """What Ollama's clients call it, such as `llama3.2:1b` or `example.org/team/model:latest`."""
    parts = PurePosixPath(path).parts
    if len(parts) != 4:
        return None
    host, namespace, model, tag = parts
    if host != PUBLIC:
        return f"{host}/{namespace}/{model}:{tag}"
    return f"{model}:{tag}" if namespace == "library" else f"{namespace}/{model}:{tag}"
