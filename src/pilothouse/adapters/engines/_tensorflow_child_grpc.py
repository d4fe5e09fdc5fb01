"""
The gRPC door of our SavedModel host: TensorFlow Serving's services at a private socket.

Predict and metadata of PredictionService, status of ModelService, and a service that is
ours: `Open` counts an answer for as long as its call is held, `Load` says how many there
are. Only TensorFlow's environment is there: nothing of Pilothouse is imported, and
messages come from the file that `_tensorflow_child` gives.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from grpc import aio

SIGNATURES = "signature_def"
SIGNATURES_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
MAX_ELEMENTS = 1 << 20
AVAILABLE = 30
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Services:
    """
    Args:
        pb: The messages, `_serving_pb2`.
        host: `_tensorflow_child`, whose words these are.
    """

    def __init__(self, pb: Any, host: Any, model: Any, places: Any, *, slots: int) -> None:
        self._pb = pb
        self._host = host
        self._model = model
        self._places = places
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="predict")

    def handlers(self) -> list[Any]:
        pb = self._pb
        return [
            _service(
                "tensorflow.serving.PredictionService",
                Predict=(self._predict, pb.PredictRequest),
                GetModelMetadata=(self._metadata, pb.MetadataRequest),
            ),
            _service("tensorflow.serving.ModelService", GetModelStatus=(self._status, pb.StatusRequest)),
            grpc.method_handlers_generic_handler(
                "pilothouse.Host",
                {
                    "Load": grpc.unary_unary_rpc_method_handler(self._load),
                    "Open": grpc.unary_stream_rpc_method_handler(self._open),
                },
            ),
        ]

    async def _predict(self, request: Any, context: Any) -> Any:
        try:
            self._check(request.model_spec)
            loop = asyncio.get_running_loop()
            outputs = await loop.run_in_executor(self._threads, self._predicted, request)
        except self._host.Refused as exc:
            await _abort(context, exc)
        return self._pb.PredictAnswer(outputs=outputs, model_spec=self._named(request.model_spec))

    def _predicted(self, request: Any) -> dict[str, Any]:
        from tensorflow import make_ndarray, make_tensor_proto  # noqa: PLC0415 - loaded by the model
        from tensorflow.core.framework.tensor_pb2 import TensorProto  # noqa: PLC0415 - as above

        for name, one in request.inputs.items():
            if math.prod(max(dim.size, 0) for dim in one.tensor_shape.dim) > MAX_ELEMENTS:
                raise self._host.Refused(400, f"the tensor {name} is too large")
        try:
            given = {
                name: make_ndarray(TensorProto.FromString(one.SerializeToString()))
                for name, one in request.inputs.items()
            }
        except (TypeError, ValueError) as exc:
            raise self._host.Refused(400, f"a tensor cannot be read: {exc}") from exc
        said = self._model.run_arrays(request.model_spec.signature_name or "serving_default", given)
        wanted = request.output_filter or said
        if unknown := sorted(set(wanted) - said.keys()):
            raise self._host.Refused(400, f"output tensor alias not found in signature: {unknown[0]}")
        read = self._pb.Tensor.FromString
        return {name: read(make_tensor_proto(said[name]).SerializeToString()) for name in wanted}

    async def _metadata(self, request: Any, context: Any) -> Any:
        pb = self._pb
        try:
            self._check(request.model_spec)
            self._check_field(list(request.metadata_field))
        except self._host.Refused as exc:
            await _abort(context, exc)
        found = pb.Signatures()
        for name, (inputs, outputs) in self._model.specs().items():
            one = found.signature_def[name]
            one.method_name = "tensorflow/serving/predict"
            for side, specs in ((one.inputs, inputs), (one.outputs, outputs)):
                for key, spec in specs.items():
                    side[key].CopyFrom(self._told(spec))
        told = pb.Named(type_url=SIGNATURES_URL, value=found.SerializeToString())
        return pb.MetadataAnswer(model_spec=self._named(request.model_spec), metadata={SIGNATURES: told})

    async def _status(self, request: Any, context: Any) -> Any:
        try:
            self._check(request.model_spec)
        except self._host.Refused as exc:
            await _abort(context, exc)
        one = self._pb.VersionStatus(
            version=int(self._host.VERSION), state=AVAILABLE, status=self._pb.Status()
        )
        return self._pb.StatusAnswer(model_version_status=[one])

    async def _load(self, _: bytes, __: Any) -> bytes:
        return json.dumps(self._places.load()).encode()

    async def _open(self, _: bytes, context: Any) -> AsyncIterator[bytes]:
        """Until the client hangs up, which is how it says that an answer is over."""
        try:
            self._places.open()
        except self._host.Refused as exc:
            await _abort(context, exc)
        try:
            yield b""
            await asyncio.Event().wait()
        finally:
            self._places.close()

    def _check(self, spec: Any) -> None:
        is_this = spec.name == self._host.MODEL and not spec.version_label
        if not is_this or (spec.HasField("version") and spec.version.value != int(self._host.VERSION)):
            raise self._host.Refused(404, "Servable not found for request: no such model or version")

    def _check_field(self, names: list[str]) -> None:
        if names != [SIGNATURES]:
            raise self._host.Refused(400, f"metadata field must be {SIGNATURES}")

    def _named(self, spec: Any) -> Any:
        named = self._pb.ModelSpec(name=self._host.MODEL, signature_name=spec.signature_name)
        named.version.value = int(self._host.VERSION)
        return named

    def _told(self, spec: Any) -> Any:
        pb = self._pb
        shape = pb.Shape(unknown_rank=spec.shape.rank is None)
        if spec.shape.rank is not None:
            for size in spec.shape:
                shape.dim.add(size=-1 if size is None else size)
        return pb.TensorInfo(name=spec.name, dtype=spec.dtype.as_datatype_enum, tensor_shape=shape)


async def serve(path: str, services: Services, *, max_bytes: int, most_calls: int) -> None:
    server = aio.server(
        handlers=services.handlers(),
        options=[("grpc.max_receive_message_length", max_bytes), ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=most_calls,
    )
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print(f"pilothouse: ready at {path}", flush=True)
    await server.wait_for_termination()


async def _abort(context: Any, refused: Any) -> NoReturn:
    await context.abort(_CODES.get(refused.status, grpc.StatusCode.INTERNAL), str(refused))
    raise AssertionError  # abort raises


def _service(name: str, **methods: tuple[Callable[..., Any], Any]) -> Any:
    return grpc.method_handlers_generic_handler(
        name,
        {
            method: grpc.unary_unary_rpc_method_handler(
                answer, kind.FromString, lambda said: said.SerializeToString()
            )
            for method, (answer, kind) in methods.items()
        },
    )
