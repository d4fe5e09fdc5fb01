"""TensorFlow Serving's messages: rows as tensors, the ways in which a tensor holds a value, what is none."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.adapters.engines import _serving_pb2 as pb
from pilothouse.adapters.engines._tensorflow_messages import (
    SIGNATURES,
    read,
    row_message,
    row_of_message,
    signatures_of,
    spec_of,
)
from pilothouse.domain.errors import InvalidRequest, OperationFailed, UpstreamError
from pilothouse.wire.tensorflow.signature import Signature, Tensor

NUMBERS = {"DT_FLOAT": 1, "DT_DOUBLE": 2, "DT_INT32": 3, "DT_STRING": 7, "DT_INT64": 9, "DT_BOOL": 10}
ONE = pb.Shape(dim=[pb.Dim(size=1)])
VALUES = st.one_of(
    st.tuples(st.just("DT_STRING"), st.binary(max_size=9)),
    st.tuples(st.just("DT_INT32"), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("DT_INT64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("DT_BOOL"), st.booleans()),
    st.tuples(st.just("DT_DOUBLE"), st.floats(allow_nan=False)),
    st.tuples(st.just("DT_FLOAT"), st.floats(width=32, allow_nan=False)),
)


@given(st.dictionaries(st.text(min_size=1, max_size=4), VALUES, max_size=4))
def test_a_row_goes_over_the_wire_and_comes_back(row: dict[str, tuple[str, Any]]) -> None:
    values = {name: value for name, (_, value) in row.items()}

    sent = pb.PredictRequest(
        inputs=row_message(values, {name: Tensor(kind) for name, (kind, _) in row.items()})
    )
    answer = pb.PredictAnswer(outputs=pb.PredictRequest.FromString(sent.SerializeToString()).inputs)

    assert row_of_message(answer.outputs) == values


@pytest.mark.parametrize(
    ("dtype", "content", "value"),
    [
        ("DT_INT32", struct.pack("<i", -5), -5),
        ("DT_INT64", struct.pack("<q", 2**40), 2**40),
        ("DT_FLOAT", struct.pack("<f", 0.5), 0.5),
        ("DT_STRING", b"\x02hi", b"hi"),
        ("DT_STRING", b"\xac\x02" + b"x" * 300, b"x" * 300),
        ("DT_INT32", b"", 0),
        ("DT_STRING", b"", b""),
    ],
)
def test_values_are_read_from_bytes_and_where_zeros_were_left_out(
    dtype: str, content: bytes, value: Any
) -> None:
    tensor = pb.Tensor(dtype=NUMBERS[dtype], tensor_shape=ONE, tensor_content=content)

    assert row_of_message({"x": tensor}) == {"x": value}


@pytest.mark.parametrize(
    ("dtype", "content"), [("DT_INT32", b"12"), ("DT_STRING", b"\x05hi"), ("DT_STRING", b"\xff")]
)
def test_bytes_that_hold_something_else_are_the_servers_fault(dtype: str, content: bytes) -> None:
    with pytest.raises(UpstreamError, match="tensor x"):
        row_of_message({"x": pb.Tensor(dtype=NUMBERS[dtype], tensor_shape=ONE, tensor_content=content)})


def test_tensors_of_more_than_a_row_have_no_value() -> None:
    rows = pb.Tensor(dtype=3, tensor_shape=pb.Shape(dim=[pb.Dim(size=2)]), int_val=[1, 2])

    assert row_of_message({"x": rows, "y": pb.Tensor(dtype=20, tensor_shape=ONE)}) == {}


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("DT_INT32", 2**31), ("DT_INT32", 0.5), ("DT_STRING", 3), ("DT_FLOAT", "a"), ("DT_FLOAT", 1e300)],
)
def test_a_value_that_its_tensor_cannot_hold_is_refused_by_name(dtype: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"seed: the model takes a {dtype}"):
        row_message({"seed": value}, {"seed": Tensor(dtype)})


def test_a_type_that_no_request_has_and_a_tensor_that_is_gone_are_told() -> None:
    with pytest.raises(UpstreamError, match="x is a tensor of type 20"):
        row_message({"x": 1}, {"x": Tensor("tensor of type 20")})
    with pytest.raises(InvalidRequest, match="loaded anew"):
        row_message({"x": 1}, {})


def test_signatures_are_read_and_those_without_inputs_left_out() -> None:
    told = pb.Signatures()
    told.signature_def["generate"].inputs["prompt"].CopyFrom(pb.TensorInfo(dtype=7, tensor_shape=ONE))
    told.signature_def["generate"].outputs["odd"].CopyFrom(pb.TensorInfo(dtype=21))
    told.signature_def["init"].method_name = "x"
    named = pb.Named(value=told.SerializeToString())

    assert signatures_of(pb.MetadataAnswer(metadata={SIGNATURES: named})) == {
        "generate": Signature({"prompt": Tensor("DT_STRING")}, {"odd": Tensor("tensor of type 21", False)})
    }
    with pytest.raises(UpstreamError):
        signatures_of(pb.MetadataAnswer())


def test_a_model_is_named_as_over_rest() -> None:
    assert spec_of("text") == pb.ModelSpec(name="text")
    assert spec_of("text/versions/3") == pb.ModelSpec(name="text", version=pb.Number(value=3))
    assert spec_of("text/labels/stable") == pb.ModelSpec(name="text", version_label="stable")
    with pytest.raises(OperationFailed, match="'x' is no version"):
        spec_of("text/versions/x")


@given(st.binary(max_size=60))
def test_garbage_is_a_typed_error(data: bytes) -> None:
    try:
        row_of_message(read(pb.PredictAnswer, data).outputs)
    except UpstreamError:
        pass
