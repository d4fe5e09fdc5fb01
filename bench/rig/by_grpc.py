"""
Engines called directly over gRPC, by the messages of the drivers.

One connection a server is kept, as the gateway keeps its own: making one costs more than an answer.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import grpc

from pilothouse.adapters.engines import _inference_pb2 as inference
from pilothouse.adapters.engines import _serving_pb2 as serving
from rig.client import TIMEOUT_S, Door

_FLOAT, _INT32, _STRING = 1, 3, 7
_FIELDS = {_FLOAT: "float_val", _INT32: "int_val", _STRING: "string_val"}


def tensorflow(door: Door, prompt: str, max_tokens: int) -> Iterator[int]:
    """By pieces of 1, 2, 4, 8 and 16 tokens, for an answer that is to be seen as it grows."""
    predict = _channel(door.address).unary_unary("/tensorflow.serving.PredictionService/Predict")
    said, size, state = 0, 1, b""
    while said < max_tokens:
        size = min(size, max_tokens - said)
        asked = serving.PredictRequest(
            inputs={
                "prompt": _row(_STRING, b"" if state else prompt.encode()),
                "max_tokens": _row(_INT32, size),
                "context_tokens": _row(_INT32, 1024),
                "temperature": _row(_FLOAT, 0.0),
                "top_p": _row(_FLOAT, 1.0),
                "seed": _row(_INT32, 1),
                "state_bytes": _row(_STRING, state),
            }
        )
        asked.model_spec.name, asked.model_spec.signature_name = "model", "generate"
        told = serving.PredictAnswer.FromString(predict(asked.SerializeToString(), timeout=TIMEOUT_S))
        said += size
        yield said
        state, size = told.outputs["state_bytes"].string_val[0], min(2 * size, 16)


def triton(door: Door, prompt: str, max_tokens: int) -> Iterator[int]:
    asked = inference.InferRequest(model_name="model")
    asked.parameters["triton_enable_empty_final_response"].bool_param = True
    sampling = json.dumps({"max_tokens": max_tokens, "temperature": 0.0})
    for name, text in (("text_input", prompt), ("sampling_parameters", sampling)):
        asked.inputs.add(name=name, datatype="BYTES", shape=[1])
        asked.raw_input_contents.append(_counted(text.encode()))
    stream = _channel(door.address).unary_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    for data in stream(asked.SerializeToString(), timeout=TIMEOUT_S):
        told = inference.Streamed.FromString(data)
        if told.error_or_name:
            raise RuntimeError(told.error_or_name.decode(errors="replace"))
        answer = inference.InferAnswer.FromString(told.answer_or_version)
        values = _values(answer)
        if values.get("text_output") or values.get("num_output_tokens"):
            yield int(values.get("num_output_tokens", 0))
        if answer.parameters["triton_final_response"].bool_param:
            return


@cache
def _channel(address: str) -> Any:
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def _row(dtype: int, value: Any) -> serving.Tensor:
    one = serving.Tensor(dtype=dtype, tensor_shape=serving.Shape(dim=[serving.Dim(size=1)]))
    getattr(one, _FIELDS[dtype]).append(value)
    return one


def _counted(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


def _values(answer: inference.InferAnswer) -> dict[str, Any]:
    """Texts and whole numbers, one a tensor."""
    found: dict[str, Any] = {}
    for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        is_text = tensor.datatype == "BYTES"
        found[tensor.name] = raw[4:] if is_text else int.from_bytes(raw, "little", signed=True)
    return found
