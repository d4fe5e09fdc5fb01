"""
The model repositories that we write for Triton: `config.pbtxt`, and what its backend reads beside it.

Belongs here: texts by path. Does not: how the server is started (`triton`). Each is what
the backend's own documents have, with the numbers of the deployment.
"""

import json
from pathlib import Path

from pilothouse.adapters.engines._own_code import generator_files
from pilothouse.wire.kserve_v2.about import TensorSpec

MODEL = "model"
"""Its name in Triton, whatever it is called here: no name of ours has to fit a path of Triton's."""
INPUTS = tuple(
    TensorSpec(name, "BYTES", [1]) for name in ("text_input", "messages", "sampling_parameters", "about")
)
"""Of our own model."""


def python_repository(
    *, model_path: str, packages: str, threads: int, context_tokens: int, slots: int, max_queue: int
) -> dict[str, str]:
    """Ours: transformers in the Python backend, requests joining between any two tokens."""
    parameters: dict[str, str | int] = {
        "model_path": model_path,
        "threads": threads,
        "context_tokens": context_tokens,
        "slots": slots,
        "max_queue": max_queue,
    }
    inputs = [_tensor(one.name) for one in INPUTS]
    outputs = [
        *(_tensor(name, optional=False) for name in ("text_output", "finish_reason")),
        *(_tensor(f"num_{what}_tokens", kind="TYPE_UINT32", optional=False) for what in ("input", "output")),
    ]
    model = Path(__file__).with_name("_triton_model.py").read_text(encoding="utf-8")
    code = {f"{MODEL}/1/{path}": text for path, text in generator_files(packages).items()}
    config = _config("python", inputs, outputs, instances="count: 1 kind: KIND_CPU", parameters=parameters)
    return {f"{MODEL}/config.pbtxt": config, f"{MODEL}/1/model.py": model, **code}


def vllm_repository(
    *, model_path: str, context_tokens: int, slots: int, tensor_parallel: int, pipeline_parallel: int
) -> dict[str, str]:
    """Triton's vLLM backend, which batches by itself."""
    arguments = {
        "model": model_path,
        "max_model_len": context_tokens,
        "max_num_seqs": slots,
        "tensor_parallel_size": tensor_parallel,
        "pipeline_parallel_size": pipeline_parallel,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "disable_log_requests": True,
    }
    wanted = ("finish_reason", "num_input_tokens", "num_output_tokens")
    flags = ("stream", "exclude_input_in_output", *(f"return_{name}" for name in wanted))
    inputs = [
        _tensor("text_input", optional=False),
        _tensor("sampling_parameters"),
        *(_tensor(name, kind="TYPE_BOOL") for name in flags),
    ]
    outputs = [
        _tensor("text_output", dims="[ -1 ]", optional=False),
        _tensor("finish_reason", dims="[ -1 ]", optional=False),
        _tensor("num_input_tokens", kind="TYPE_UINT32", optional=False),
        _tensor("num_output_tokens", kind="TYPE_UINT32", dims="[ -1 ]", optional=False),
    ]
    config = _config("vllm", inputs, outputs, instances="count: 1 kind: KIND_MODEL")
    return {f"{MODEL}/config.pbtxt": config, f"{MODEL}/1/model.json": json.dumps(arguments, indent=2)}


def _config(
    backend: str,
    inputs: list[str],
    outputs: list[str],
    *,
    instances: str,
    parameters: dict[str, str | int] | None = None,
) -> str:
    said = (
        f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}"
        for key, value in (parameters or {}).items()
    )
    lines = [
        f'name: "{MODEL}"',
        f'backend: "{backend}"',
        "# The model batches by itself, at every token: a batch of Triton's would only hold requests back.",
        "max_batch_size: 0",
        "model_transaction_policy { decoupled: true }",
        *(f"input {one}" for one in inputs),
        *(f"output {one}" for one in outputs),
        f"instance_group {{ {instances} }}",
        *said,
    ]
    return "\n".join(lines) + "\n"


def _tensor(name: str, *, kind: str = "TYPE_STRING", dims: str = "[ 1 ]", optional: bool = True) -> str:
    end = " optional: true" if optional else ""
    return f'{{ name: "{name}" data_type: {kind} dims: {dims}{end} }}'


def _quoted(value: str | int) -> str:
    """A string of protobuf's text format; JSON's escapes are among its own."""
    return json.dumps(str(value), ensure_ascii=False)
