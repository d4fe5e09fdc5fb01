"""The Open Inference Protocol's codec: round trips as JSON and as bytes, and what is refused by its field."""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.tensors import (
    DataType,
    Inferred,
    InferRequest,
    Tensor,
    TensorFault,
    integer_bounds,
)
from pilothouse.wire.kserve_v2 import about, infer
from pilothouse.wire.kserve_v2.tensors import from_json, from_raw, to_json, to_raw

_INTEGERS: list[DataType] = ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
_WIDTHS: dict[DataType, Any] = {"FP16": 16, "FP32": 32, "FP64": 64}
_NAMES = st.text(min_size=1, max_size=8)


def _values(datatype: DataType, count: int, *, is_json: bool) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if datatype == "BYTES":
        one = st.text(max_size=12).map(str.encode) if is_json else st.binary(max_size=12)
    elif datatype == "BOOL":
        one = st.booleans()
    elif datatype in _WIDTHS:
        one = st.floats(width=_WIDTHS[datatype], allow_nan=False, allow_infinity=not is_json)
    else:
        one = st.integers(*integer_bounds(datatype))
    return st.lists(one, min_size=count, max_size=count)


@st.composite
def tensors(draw: st.DrawFn, *, is_json: bool) -> Tensor:
    datatype = draw(st.sampled_from([*_INTEGERS, *_WIDTHS, "BOOL", "BYTES"]))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    values = draw(_values(datatype, math.prod(shape), is_json=is_json))
    return Tensor(draw(_NAMES), datatype, shape, values)


def same(one: Tensor, other: Tensor) -> bool:
    return (one.name, one.datatype, one.shape, list(one.values)) == (
        other.name,
        other.datatype,
        other.shape,
        list(other.values),
    )


@given(tensors(is_json=True))
def test_a_tensor_comes_back_from_json(tensor: Tensor):
    again = from_json(tensor.name, tensor.datatype, tensor.shape, json.loads(json.dumps(to_json(tensor))))

    assert same(again, tensor)


@given(tensors(is_json=False))
def test_a_tensor_comes_back_from_bytes(tensor: Tensor):
    assert same(from_raw(tensor.name, tensor.datatype, tensor.shape, to_raw(tensor)), tensor)


@given(st.lists(tensors(is_json=True), min_size=1, max_size=4), st.booleans())
def test_a_request_comes_back(given_tensors: list[Tensor], is_binary: bool):
    asked = InferRequest(
        endpoint="m", inputs=tuple(given_tensors), outputs=("a",), parameters={"n": 1, "x": "y"}, id="7"
    )

    body, length = infer.write_request(asked, binary=is_binary)
    again = infer.read_request(body, length, endpoint="m")

    assert all(map(same, again.request.inputs, asked.inputs))
    assert (again.request.outputs, again.request.parameters, again.request.id) == (
        ("a",),
        asked.parameters,
        "7",
    )
    assert again.binary == (frozenset({"a"}) if is_binary else frozenset())


@given(st.lists(tensors(is_json=True), max_size=4), st.booleans())
def test_an_answer_comes_back(given_tensors: list[Tensor], is_binary: bool):
    inferred = Inferred(outputs=tuple(given_tensors), parameters={"finish_reason": "stop"})

    body, length = infer.write_answer(inferred, model="m", binary=None if is_binary else frozenset())
    again = infer.read_answer(body, length)

    assert all(map(same, again.outputs, inferred.outputs))
    assert again.parameters == inferred.parameters


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 300)))
def test_garbage_is_a_fault_and_nothing_else(body: bytes, length: int | None):
    for read in (
        lambda: infer.read_request(body, length, endpoint="m"),
        lambda: infer.read_answer(body, length),
    ):
        with pytest.raises(TensorFault):
            read()


def test_the_published_examples_are_read():
    body = b"""{"id":"42","inputs":[
        {"name":"input0","shape":[2,2],"datatype":"UINT32","data":[[1,2],[3,4]]},
        {"name":"input1","shape":[3],"datatype":"BOOL","data":[true,0,1]}],
        "outputs":[{"name":"output0"}]}"""

    asked = infer.read_request(body, None, endpoint="m").request

    assert list(asked.inputs[0].values) == [1, 2, 3, 4]
    assert list(asked.inputs[1].values) == [True, False, True]
    assert asked.outputs == ("output0",)


def test_the_published_binary_example_is_read():
    head = b"""{"model_name":"mymodel","inputs":[]}"""
    head = (
        b'{"inputs":[{"name":"input0","shape":[2,2],"datatype":"UINT32","parameters":{"binary_data_size":16}},'
        b'{"name":"input1","shape":[3],"datatype":"BOOL","parameters":{"binary_data_size":3}}],'
        b'"outputs":[{"name":"output0","parameters":{"binary_data":true}}]}'
    )
    raw = struct.pack("<4I", 1, 2, 3, 4) + b"\x01\x00\x01"

    asked = infer.read_request(head + raw, len(head), endpoint="m")

    assert list(asked.request.inputs[0].values) == [1, 2, 3, 4]
    assert list(asked.request.inputs[1].values) == [True, False, True]
    assert asked.binary == frozenset({"output0"})


def _one(**changes: Any) -> bytes:
    tensor = {"name": "x", "shape": [2], "datatype": "INT8", "data": [1, 2]} | changes
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (_one(data=[1, 2, 3]), "x: data has 3 values"),
        (_one(data=[1, 200]), "x: 200 is no integer of -128 to 127"),
        (_one(data=[1, 1.5]), "x: 1.5 is no integer"),
        (_one(data=[1, True]), "x: True is no integer"),
        (_one(data=[1, None]), "x: None is no integer"),
        (_one(shape=[-1]), "shape"),
        (_one(shape=[2**20, 2**20]), "elements are more than"),
        (_one(shape=[0, 2**40], data=[]), ""),
        (_one(datatype="BF16"), "x: datatype 'BF16' is none of"),
        (_one(datatype="FP16", data=[1, 1e6]), "more than FP16 holds"),
        (_one(datatype="FP32", data=[1, 10**400]), "more than FP32 holds"),
        (_one(datatype="BYTES", data=["a", 1]), "x: 1 is no text"),
        (_one(parameters={"shared_memory_region": "r"}), "shared_memory_region is not supported"),
        (_one(parameters={"binary_data_size": 4}), "more than the bytes behind"),
        (b'{"inputs":[]}', "inputs"),
        (b'{"input":[]}', "input"),
        (b"[]", "body"),
        (b"{", "not valid JSON"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(body: bytes, says: str):
    if not says:
        assert infer.read_request(body, None, endpoint="m")
        return
    with pytest.raises(TensorFault, match=says.replace("(", r"\(")):
        infer.read_request(body, None, endpoint="m")


def test_bytes_that_are_nobodys_are_refused():
    body = _one() + b"more"

    with pytest.raises(TensorFault, match="belong to no tensor"):
        infer.read_request(body, len(_one()), endpoint="m")


def test_what_json_has_no_form_for_is_refused_before_it_is_sent():
    for tensor in (Tensor("x", "FP32", (1,), [math.nan]), Tensor("x", "BYTES", (1,), [b"\xff"])):
        with pytest.raises(TensorFault, match="x: "):
            infer.write_request(InferRequest(endpoint="m", inputs=(tensor,)))
        assert infer.write_request(InferRequest(endpoint="m", inputs=(tensor,)), binary=True)[1]


def test_a_servers_words_are_read_whatever_they_are():
    assert about.read_error(b'{"error":"no such model"}') == "no such model"
    for body in (b'{"error":{"deep":1}}', b"<html>", b"\xff", b'{"detail":"x"}'):
        assert about.read_error(body) == ""


def test_what_a_model_is_comes_back():
    said = about.ModelMetadata(
        name="m",
        versions=["1"],
        platform="onnx",
        inputs=[about.TensorSpec("x", "FP32", [-1, 4])],
        outputs=[about.TensorSpec("y", "INT64", [-1])],
    )

    assert about.read_model(about.write(said)) == said
    with pytest.raises(TensorFault):
        about.read_model(b"[]")
