"""
The model that Triton's Python backend runs: text in, pieces of text out, as `model.py` of a repository.

Belongs here: Triton's tensors and senders. Does not: generating (`_batch`, `_generator`),
of which copies lie beside it. Inputs and outputs have the names of Triton's vLLM backend,
and three more: `messages`, `num_input_tokens` and `about`, by which a Pilothouse asks
how much is going on without waiting for its turn.

Only the engine's environment is there: nothing of Pilothouse is imported.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

# First: it leads to the packages of the engine's environment, where Triton looks at the system's alone.
from pilothouse_model._batch import Batch, Row
from pilothouse_model._generator import Generator, Piece

# isort: split
import numpy  # noqa: ICN001
import triton_python_backend_utils as triton

FINAL = triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
BROKEN_STATUS = 70


class TritonPythonModel:
    """As Triton's Python backend has it: one of each instance, in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        said = {name: value["string_value"] for name, value in config["parameters"].items()}
        generator = Generator(
            said["model_path"], threads=int(said["threads"]), context_tokens=int(said["context_tokens"])
        )
        self._batch = Batch(generator, places=int(said["slots"]), waiting=int(said["max_queue"]))
        threading.Thread(target=self._run, daemon=True).start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests and return: their answers come from the batch's thread, as they are made."""
        for request in requests:
            sender = request.get_response_sender()
            if text_of(request, "about"):
                load = {
                    "running": self._batch.running,
                    "waiting": self._batch.waiting,
                    "process": os.getpid(),
                }
                sender.send(response(text_output=json.dumps(load)), flags=FINAL)
                continue
            try:
                asked = read(request)
            except ValueError as exc:
                sender.send(refusal({"error": "invalid", "reason": str(exc)}, triton.TritonError.INVALID_ARG))
                sender.send(flags=FINAL)
                continue
            row = Row(asked, Speaker(sender).say, sender.is_cancelled)
            if not self._batch.put(row):
                sender.send(refusal({"error": "full"}, triton.TritonError.UNAVAILABLE), flags=FINAL)

    def finalize(self) -> None:
        self._batch.end()

    def _run(self) -> None:
        try:
            self._batch.run()
        finally:
            if sys.exc_info()[1] is not None:
                # Whoever waits would wait for ever, where a process that ended is loaded anew.
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(BROKEN_STATUS)


class Speaker:
    """Sends the pieces of one answer."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def say(self, piece: Piece | None) -> None:
        if piece is None:
            self._sender.send(flags=FINAL)
        elif "error" in piece:
            self._sender.send(refusal(piece, triton.TritonError.INVALID_ARG))
        elif "finish" in piece:
            self._sender.send(
                response(
                    text_output=piece["text"],
                    finish_reason=piece["finish"],
                    num_input_tokens=piece["prompt_tokens"],
                    num_output_tokens=piece["completion_tokens"],
                )
            )
        else:
            self._sender.send(response(text_output=piece["text"]))


def read(request: Any) -> dict[str, Any]:
    """
    Raises:
        ValueError: What was sent is not JSON, or no prompt.
    """
    asked = json.loads(text_of(request, "sampling_parameters") or "{}")
    if not isinstance(asked, dict):
        raise ValueError("sampling_parameters is no object")  # noqa: TRY004 - what a caller sent, not a type
    if messages := text_of(request, "messages"):
        return {**asked, "messages": json.loads(messages)}
    return {**asked, "prompt": text_of(request, "text_input")}


def text_of(request: Any, name: str) -> str:
    tensor = triton.get_input_tensor_by_name(request, name)
    return "" if tensor is None else str(tensor.as_numpy().reshape(-1)[0], "utf-8")


def response(**outputs: str | int) -> Any:
    return triton.InferenceResponse(
        [
            triton.Tensor(
                name, numpy.array([value], dtype=object if isinstance(value, str) else numpy.uint32)
            )
            for name, value in outputs.items()
        ]
    )


def refusal(why: dict[str, Any], code: Any) -> Any:
    return triton.InferenceResponse(error=triton.TritonError(json.dumps(why), code))
