"""
KServe's resources, read as a spec.

Source: the published schemas of `serving.kserve.io` InferenceService (v1beta1) and
LLMInferenceService (v1alpha1). A GGUF file is run here; a service that says where
it runs already, and speaks OpenAI's dialect, is attached; anything else is told.
"""

from urllib.parse import urlsplit

from pilothouse.domain.options import AttachOptions, EngineOptions, written
from pilothouse.domain.spec import (
    DeploymentSpec,
    EndpointSpec,
    LimitsSpec,
    ModelSpec,
    ReplicaRange,
    RouteSpec,
)
from pilothouse.wire.imports.carried import Carried, Fields, free_name

MAX_TOKENS = 32_768
"""Of one answer: a service there has no bound of its own."""
TIMEOUT_S = 60
"""KServe's own default."""
_SOURCES = {"hf://": "hf:", "s3://": "s3://", "https://": "https://"}
"""What of a `storageUri` is a source here."""
_SERVICE_NOTES = {
    "transformer": "only the predictor is served",
    "explainer": "only the predictor is served",
}
_PREDICTOR_NOTES = {
    "canaryTrafficPercent": "a new version is let in by pilothouse rollout start",
    "serviceAccountName": "what reads the models has settings of its own, of up",
    "logger": "requests are recorded here anyway",
    "batcher": "engines batch by themselves",
    "nodeSelector": "replicas run on this machine",
    "tolerations": "replicas run on this machine",
    "affinity": "replicas run on this machine",
    "workerSpec": "a model over several machines",
    "autoScaling": "see replicas in docs/howto/scale-to-zero.md",
}
_MODEL_NOTES = {
    "args": "options of its server",
    "env": "variables of its server",
    "resources": "what a model needs is computed from its file: pilothouse plan",
    "storage": "credentials of the storage are settings of up",
    "runtime": "the engine is chosen by the model's format",
}
_LLM_NOTES = {
    "router": "endpoints and routes are declared here",
    "template": "containers of its server",
    "parallelism": "options of its server",
    "prefill": "prompts are read where answers are written",
    "worker": "a model over several machines",
    "baseRefs": "what it inherits was not read",
}
_FORMATS = {
    "gguf": "a GGUF file",
    "huggingface": "a folder of safetensors",
    "vLLM": "a folder of safetensors",
}


def read(documents: list[object]) -> Carried:
    """
    Args:
        documents: The parsed documents of a file; a `List`, as kubectl writes it, is opened.
    """
    carried = Carried()
    for place, document in enumerate(documents):
        _document(Fields(document, f"document {place + 1}", carried), carried)
    return carried


def _document(fields: Fields, carried: Carried) -> None:
    kind, group = fields.text("kind"), fields.text("apiVersion").partition("/")[0]
    if kind.endswith("List"):
        for item in fields.items("items"):
            _document(item, carried)
    elif group == "serving.kserve.io" and kind == "InferenceService":
        _Service(fields, carried).inference_service()
    elif group == "serving.kserve.io" and kind == "LLMInferenceService":
        _Service(fields, carried).llm_inference_service()
    else:
        carried.note(
            fields.path, f"a {kind[:60] or 'document without a kind'}: nothing here corresponds to it"
        )


class _Service:
    """One resource; `name` is free already."""

    def __init__(self, fields: Fields, carried: Carried) -> None:
        meta = fields.inner("metadata")
        self._carried = carried
        self._called = meta.text("name")
        self._name = free_name(self._called, carried.deployments)
        status = fields.inner("status")
        self._url = status.text("url") or status.inner("address").text("url")
        self._spec = fields.inner("spec")
        self._spec.path = self._name
        self._timeout_s = TIMEOUT_S

    def inference_service(self) -> None:
        self._spec.refuse_known(_SERVICE_NOTES)
        predictor = self._spec.inner("predictor")
        model = predictor.inner("model")
        form = model.inner("modelFormat").text("name")
        replicas = _replicas(predictor)
        slots = predictor.whole("containerConcurrency")
        self._timeout_s = predictor.whole("timeout") or self._timeout_s
        uri = model.text("storageUri")
        model.take("protocolVersion")
        if not form and not uri:
            self._carried.note(self._name, "no predictor.model with a format and a storageUri: left out")
            return
        if uri.lower().endswith(".gguf"):
            self._run(uri, replicas, slots)
        elif form in ("huggingface", "vLLM") and self._url:
            args = model.peek("args")
            self._attach(f"{self._url.rstrip('/')}/openai/v1", _flag(args, "--model_name") or self._called)
        else:
            self._refuse(form, uri)
        for fields, known in ((model, _MODEL_NOTES), (predictor, _PREDICTOR_NOTES)):
            fields.refuse_known(known)
            fields.rest()
        self._spec.rest()

    def llm_inference_service(self) -> None:
        model = self._spec.inner("model")
        uri, served = model.text("uri"), model.text("name") or self._called
        count = self._spec.whole("replicas") or 1
        if uri.lower().endswith(".gguf"):
            self._run(uri, ReplicaRange(min=count, max=count), 0)
        elif self._url:
            self._attach(f"{self._url.rstrip('/')}/v1", served)
        else:
            self._refuse("huggingface", uri)
        model.rest("options of its server")
        self._spec.refuse_known(_LLM_NOTES)
        self._spec.rest()

    def _run(self, uri: str, replicas: ReplicaRange, slots: int) -> None:
        source = next(
            (ours + uri.removeprefix(start) for start, ours in _SOURCES.items() if uri.startswith(start)), ""
        )
        if not source:
            self._carried.note(
                f"{self._name}.storageUri",
                f"{uri.partition('://')[0][:20]}: models come from hf, s3, https or a file; it was left out",
            )
            return
        self._carried.models[self._name] = ModelSpec(source=source)
        self._declare(
            DeploymentSpec(
                model=self._name, replicas=replicas, engine_options=written(EngineOptions(slots=slots))
            )
        )

    def _attach(self, base_url: str, served: str) -> None:
        host = urlsplit(base_url).hostname or ""
        self._declare(
            DeploymentSpec(
                engine="openai",
                provider_model=served,
                engine_options=written(
                    AttachOptions(
                        base_url=base_url,
                        allow_private_network="." not in host or host.endswith((".local", ".svc")),
                    )
                ),
            )
        )
        self._carried.note(f"{self._name}.replicas", "it runs there already, and is scaled there")

    def _declare(self, deployment: DeploymentSpec) -> None:
        self._carried.deployments[self._name] = deployment
        self._carried.endpoints[self._name] = EndpointSpec(
            routes=[RouteSpec(deployment=self._name)],
            limits=LimitsSpec(max_tokens=MAX_TOKENS, timeout=f"{self._timeout_s}s"),
        )

    def _refuse(self, form: str, uri: str) -> None:
        what = _FORMATS.get(form, f"a model of format {form[:40] or 'unknown'}")
        self._carried.note(
            self._name,
            f"{what} ({uri.partition('://')[0][:20] or 'no'} storage), and no address where it runs. "
            "Import what kubectl get -o yaml prints of a running one, or see pilothouse engine list",
        )


def _replicas(predictor: Fields) -> ReplicaRange:
    least = predictor.number("minReplicas")
    low = 1 if least is None else int(least)
    high = max(predictor.whole("maxReplicas"), low, 1)
    target = 0
    if predictor.text("scaleMetric") in ("", "concurrency"):
        target = predictor.whole("scaleTarget")
    return ReplicaRange(min=low, max=high, target_inflight=target)


def _flag(args: object, name: str) -> str:
    """The value of `--name=value`, or of `--name value`."""
    words = [str(word) for word in args] if isinstance(args, list) else []
    for place, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and place + 1 < len(words):
            return words[place + 1]
    return ""
