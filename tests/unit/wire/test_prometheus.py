from hypothesis import given
from hypothesis import strategies as st

from pilothouse.wire.prometheus import samples

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {b} c"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
vllm:num_requests_running_by_reason{reason="x"} 7.0
plain 1e-3 1795924224354
broken{a="b"} many
plain NaN
nothing
"""


def test_the_samples_of_a_name_are_found_whatever_their_labels() -> None:
    found = samples(TEXT, {"vllm:num_requests_running", "plain", "broken", "nothing", "absent"})

    assert found == {"vllm:num_requests_running": [2.0, 3.0], "plain": [0.001]}


@given(st.text())
def test_any_text_is_read_or_left_out(text: str) -> None:
    assert samples(text, {"a"}) is not None
