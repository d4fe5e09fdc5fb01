import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.errors import UpstreamError
from pilothouse.wire.tensorflow import rest
from pilothouse.wire.tensorflow.signature import Tensor

METADATA = {
    "model_spec": {"name": "m", "signature_name": "", "version": "1"},
    "metadata": {
        "signature_def": {
            "signature_def": {
                "generate": {
                    "inputs": {
                        "prompt": {
                            "dtype": "DT_STRING",
                            "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                            "name": "generate_prompt:0",
                        },
                        "top_k": {"dtype": "DT_INT32", "tensor_shape": {"dim": [], "unknown_rank": False}},
                    },
                    "outputs": {"text": {"dtype": "DT_STRING", "tensor_shape": {"unknown_rank": True}}},
                    "method_name": "tensorflow/serving/predict",
                },
                "__saved_model_init_op": {"inputs": {}, "outputs": {}},
            }
        }
    },
}


def test_signatures_are_read_as_tensorflow_serving_tells_them() -> None:
    told = rest.read_signatures(json.dumps(METADATA).encode())

    assert list(told) == ["generate"]
    assert told["generate"].inputs == {
        "prompt": Tensor("DT_STRING", is_row=True),
        "top_k": Tensor("DT_INT32", is_row=False),
    }
    assert told["generate"].outputs == {"text": Tensor("DT_STRING", is_row=True)}


def test_one_row_is_asked_for_by_name() -> None:
    body = rest.write_predict("generate", {"prompt": "Grüße", "state_bytes": {"b64": "AAE="}})

    assert json.loads(body) == {
        "signature_name": "generate",
        "instances": [{"prompt": "Grüße", "state_bytes": {"b64": "AAE="}}],
    }


def test_a_single_tensor_comes_without_its_name() -> None:
    assert rest.read_predict(b'{"predictions":["a"]}', {"text": "t"}) == {"t": "a"}
    assert rest.read_predict(b'{"predictions":[{"t":"a","u":1}]}', {"text": "t"}) == {"t": "a", "u": 1}


@given(st.binary(max_size=64) | st.sampled_from([b'{"predictions":[]}', b'{"predictions":["a","b"]}', b"[]"]))
def test_garbage_is_the_engines_fault(data: bytes) -> None:
    for read in (rest.read_signatures, lambda body: rest.read_predict(body, {"text": "t"})):
        with pytest.raises(UpstreamError):
            read(data)
    assert isinstance(rest.read_fault(data), str)
