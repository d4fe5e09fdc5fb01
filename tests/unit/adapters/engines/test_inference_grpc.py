"""gRPC messages of the Open Inference Protocol: to and from tensors, and both ways of streaming."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.adapters.engines import _inference_pb2 as pb
from pilothouse.adapters.engines._inference_grpc import from_message, streamed, to_message
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.tensors import InferRequest, Tensor

ANSWER = pb.InferAnswer(
    model_name="m",
    outputs=[
        pb.Tensor(
            name="text_output",
            datatype="BYTES",
            shape=[1],
            contents=pb.Contents(bytes_contents=["é".encode()]),
        )
    ],
)


@given(
    st.lists(st.binary(max_size=9), max_size=4),
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.one_of(
            st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5), st.floats(allow_nan=False)
        ),
        max_size=3,
    ),
)
def test_what_is_sent_has_all_that_was_asked(
    values: list[bytes], parameters: dict[str, bool | int | float | str]
):
    tensor = Tensor("x", "BYTES", (len(values),), values)
    asked = InferRequest(endpoint="m", inputs=(tensor,), outputs=("y",), parameters=parameters, id="1")

    sent = pb.InferRequest.FromString(
        to_message(asked, model="m", version="2", reals=True).SerializeToString()
    )

    # A server echoes it: the answer's fields are the request's.
    echoed = pb.InferAnswer(outputs=sent.inputs, raw_output_contents=sent.raw_input_contents)
    for name, one in sent.parameters.items():
        echoed.parameters[name].CopyFrom(one)
    back = from_message(echoed)
    assert list(back.outputs[0].values) == values
    assert back.parameters == parameters
    assert (sent.model_name, sent.model_version, sent.id, sent.outputs[0].name) == ("m", "2", "1", "y")


def test_contents_that_are_not_raw_are_read():
    assert from_message(ANSWER).outputs[0].texts() == ["é"]


def test_an_answer_is_read_wrapped_as_triton_does_and_bare_as_mlserver_does():
    bare = ANSWER.SerializeToString()
    wrapped = pb.Streamed(answer_or_version=bare).SerializeToString()

    assert streamed(bare, model="m") == ANSWER
    assert streamed(wrapped, model="m") == ANSWER
    assert streamed(
        pb.InferAnswer(model_name="m", model_version="v1").SerializeToString(), model="m"
    ).model_name
    assert (
        streamed(pb.Streamed(error_or_name=b"out of memory").SerializeToString(), model="m")
        == "out of memory"
    )


@given(st.binary(max_size=60))
def test_garbage_is_a_typed_error(data: bytes):
    try:
        said = streamed(data, model="m")
        isinstance(said, str) or from_message(said)
    except UpstreamError:
        pass


@pytest.mark.parametrize(
    "answer",
    [
        pb.InferAnswer(
            outputs=[pb.Tensor(name="x", datatype="FP32", shape=[2])], raw_output_contents=[b"1234"]
        ),
        pb.InferAnswer(outputs=[pb.Tensor(name="x", datatype="FP99", shape=[1])]),
        pb.InferAnswer(outputs=[pb.Tensor(name="x", datatype="FP32", shape=[-1])]),
        pb.InferAnswer(raw_output_contents=[b"1234"]),
    ],
)
def test_a_tensor_that_is_none_is_the_servers_fault(answer: pb.InferAnswer):
    with pytest.raises(UpstreamError):
        from_message(answer)


def test_workers_that_use_no_grpc_do_not_import_it():
    code = (
        "import sys, pilothouse.adapters.engines._extras, pilothouse.app.worker;"
        "sys.exit('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_fraction_goes_as_text_to_servers_whose_protocol_has_no_such_number():
    asked = InferRequest(endpoint="m", inputs=(), parameters={"temperature": 0.5, "max_tokens": 3})

    sent = to_message(asked, model="m")

    assert sent.parameters["temperature"].string_param == "0.5"
    assert sent.parameters["max_tokens"].int64_param == 3
