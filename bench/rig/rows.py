"""
The engines that `engines.py` measures. A row is one spec and how its engine is called directly.

To add one: what it serves (`source`), its `engine_options`, and `ask`, which speaks its own
protocol and says for each piece of an answer how many tokens the answer has so far, or 0
where only the last piece says.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

from msgspec import Struct

from build import BUILD
from pilothouse.adapters.engines._environment import python_of
from rig.client import Door
from rig.engine import artifact

ENDPOINT = "measured"
DEADLINE_S = 30
"""Of each request, as the endpoint has it."""
TINY = Path(__file__).parents[2] / "tests" / "fixtures" / "make_tiny_llama.py"
Ask = Callable[[Door, str, int], Iterator[int]]
"""(where, prompt, most tokens) -> tokens so far, one for each piece that came."""


class Row(Struct, frozen=True, kw_only=True):
    engine: str
    model: str
    """What is served, in words."""
    source: Callable[[], Path]
    """Makes it, once."""
    ask: Ask
    options: dict[str, Any] = {}

    def spec(self) -> dict[str, Any]:
        """One replica behind one endpoint."""
        return {
            "version": 1,
            "models": {"small": {"source": f"file:{self.source()}", "licence": "Apache-2.0"}},
            "deployments": {
                "small": {"model": "small", "engine": self.engine, "engine_options": self.options}
            },
            "endpoints": {
                ENDPOINT: {
                    "routes": [{"deployment": "small"}],
                    "limits": {"timeout": f"{DEADLINE_S}s", "max_tokens": 512},
                }
            },
        }


def openai(model: str, *, may_just_end: bool = False, **more: Any) -> Ask:
    """Of a server with OpenAI's protocol; `more` are fields of its own."""

    def ask(door: Door, prompt: str, max_tokens: int) -> Iterator[int]:
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "stream_options": {"include_usage": True},
            **more,
        }
        for event in door.stream("/v1/completions", body, may_just_end=may_just_end):
            tokens = int((event.get("usage") or {}).get("completion_tokens", 0))
            if tokens or any(choice.get("text") for choice in event.get("choices", ())):
                yield tokens

    return ask


def torchserve(door: Door, prompt: str, max_tokens: int) -> Iterator[int]:
    """Of our handler in TorchServe: lines of JSON, for whoever has the key and holds a line to it."""
    folder = Path(door.address.removeprefix("unix:")).parent
    key = json.loads((folder / "key_file.json").read_bytes())["inference"]["key"]
    caller = token_hex(8)
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0.0, "caller": caller}
    with Door(f"unix:{folder / 'callers.sock'}").connect() as line:
        line.sendall(caller.encode())
        line.recv(1)
        with (
            Door(door.address, key=key).send("POST", "/predictions/model", body) as answer,
            answer.makefile("rb") as lines,
        ):
            for text in lines:
                if text.startswith(b"{"):
                    tokens = int(json.loads(text).get("completion_tokens", 0))
                    yield tokens
                    if tokens:  # it keeps the connection, whatever it was told
                        return


def smollm2() -> Path:
    return Path(artifact().path)


def tiny_llama() -> Path:
    """3 million random weights, the same as in the tests: it says nonsense, quickly."""
    folder = BUILD / "tiny-llama"
    if not (folder / "model.safetensors").exists():
        subprocess.run([python_of("transformers"), "-I", str(TINY), str(folder)], check=True)
    return folder


def triton(door: Door, prompt: str, max_tokens: int) -> Iterator[int]:
    body = {
        "text_input": prompt,
        "sampling_parameters": json.dumps({"max_tokens": max_tokens, "temperature": 0.0}),
    }
    for event in door.stream("/v2/models/model/generate_stream", body, may_just_end=True):
        if event.get("text_output") or event.get("num_output_tokens"):
            yield int(event.get("num_output_tokens", 0))


def inference(model: str) -> Ask:
    """Of a server of the Open Inference Protocol, as MLServer streams it."""

    def ask(door: Door, prompt: str, max_tokens: int) -> Iterator[int]:
        tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": [prompt]}
        body = {"inputs": [tensor], "parameters": {"max_tokens": max_tokens, "temperature": 0.0}}
        for event in door.stream(f"/v2/models/{model}/generate_stream", body, may_just_end=True):
            tokens = int((event.get("parameters") or {}).get("completion_tokens", 0))
            if tokens or any(output["data"] != [""] for output in event["outputs"]):
                yield tokens

    return ask


def tiny_onnx() -> Path:
    """The graph of the tests: 17 million random weights, with a cache."""
    folder = BUILD / "tiny-onnx"
    if not (folder / "tokenizer_config.json").exists():
        script = str(TINY.with_name("make_onnx.py"))
        subprocess.run([python_of("mlserver"), "-I", script, "llama", str(folder)], check=True)
    return folder


ROWS = (
    Row(
        engine="mlserver",
        model="an ONNX graph of a Llama with 17 million random weights",
        source=tiny_onnx,
        ask=inference("model"),
    ),
    Row(
        engine="llama.cpp",
        model="SmolLM2-135M Q4_1",
        source=smollm2,
        # As the gateway asks: without slot and prefix the engine called directly would use more CPU.
        ask=openai("small", id_slot=0, cache_prompt=True),
        options={"slots": 2, "context_tokens": 1024},
    ),
    Row(
        engine="transformers",
        model="a Llama of 3 million random weights",
        source=tiny_llama,
        ask=openai("model", may_just_end=True),
    ),
    Row(
        engine="vllm",
        model="a Llama of 3 million random weights",
        source=tiny_llama,
        ask=openai("model"),
        options={"context_tokens": 1024},
    ),
    Row(
        engine="torchserve",
        model="a Llama of 3 million random weights",
        source=tiny_llama,
        ask=torchserve,
    ),
    Row(
        engine="triton",
        model="a Llama of 3 million random weights",
        source=tiny_llama,
        ask=triton,
        options={"context_tokens": 1024, "slots": 2},
    ),
)
