"""
The engines that `engines.py` measures. A row is one spec and how its engine is called directly.

To add one: what it serves (`model`), its `engine_options`, and `ask`, which speaks its own
protocol and says for each piece of an answer how many tokens the answer has so far, or 0
where only the last piece says. Those of gRPC are in `by_grpc`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

from msgspec import Struct

from build import BUILD
from pilothouse.adapters.engines._environment import python_of
from rig import by_grpc
from rig.client import Door
from rig.engine import artifact

ENDPOINT = "measured"
DEADLINE_S = 30
"""Of each request, as the endpoint has it."""
ROOT = Path(__file__).parents[2]
CHAT = {"user": "{content}\n", "assistant": "{content}\n"}
"""How a SavedModel, which has no template, is told a chat: the askers chat."""
Ask = Callable[[Door, str, int], Iterator[int]]
"""(where, prompt, most tokens) -> tokens so far, one for each piece that came."""


class Model(Struct, frozen=True):
    about: str
    """What it is, in words."""
    source: Callable[[], Path]
    """Makes it, once."""


class Row(Struct, frozen=True, kw_only=True):
    engine: str
    model: Model
    ask: Ask
    options: dict[str, Any] = {}
    small: Model | None = None
    """A toy, quick enough that a millisecond can be seen in its answers."""
    protocol: str = ""
    """Where an engine has a row for each of several."""

    @property
    def name(self) -> str:
        return f"{self.engine}, {self.protocol}" if self.protocol else self.engine

    def spec(self, model: Model) -> dict[str, Any]:
        """One replica behind one endpoint."""
        return {
            "version": 1,
            "models": {"small": {"source": f"file:{model.source()}", "licence": "Apache-2.0"}},
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


def tensorflow(door: Door, prompt: str, max_tokens: int) -> Iterator[int]:
    """By pieces of 1, 2, 4, 8 and 16 tokens on one connection, for an answer that is seen as it grows."""
    said, size = 0, 1
    row: dict[str, Any] = {"context_tokens": 1024, "temperature": 0.0, "top_p": 1.0, "seed": 1}
    row |= {"prompt": prompt, "state_bytes": ""}
    with door.connect() as line, line.makefile("rb") as answers:
        while said < max_tokens:
            size = min(size, max_tokens - said)
            body = {"signature_name": "generate", "instances": [row | {"max_tokens": size}]}
            data = json.dumps(body).encode()
            head = f"POST /v1/models/model:predict HTTP/1.1\r\nHost: b\r\nContent-Length: {len(data)}\r\n\r\n"
            line.sendall(head.encode() + data)
            (told,) = json.loads(_answer(answers))["predictions"]
            said += size
            yield said
            row |= {"prompt": "", "state_bytes": told["state_bytes"]}
            size = min(2 * size, 16)


def _answer(lines: BinaryIO) -> bytes:
    """The body of the next one on a connection that is kept."""
    length = 0
    for line in iter(lines.readline, b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return lines.read(length)


def smollm2() -> Path:
    return Path(artifact().path)


def tiny_llama() -> Path:
    """The same as in the tests: it says nonsense, quickly."""
    folder = BUILD / "tiny-llama"
    if not (folder / "model.safetensors").exists():
        script = str(ROOT / "tests" / "fixtures" / "make_tiny_llama.py")
        subprocess.run([python_of("transformers"), "-I", script, str(folder)], check=True)
    return folder


def smollm2_folder() -> Path:
    """The same weights as safetensors."""
    folder = BUILD / "smollm2"
    if not (folder / "model.safetensors").exists():
        argv = [sys.executable, str(ROOT / "tools" / "smollm2_folder.py"), str(folder)]
        subprocess.run([*argv, "--gguf", str(smollm2())], check=True, stdout=subprocess.DEVNULL)
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
        script = str(ROOT / "tests" / "fixtures" / "make_onnx.py")
        subprocess.run([python_of("mlserver"), "-I", script, "llama", str(folder)], check=True)
    return folder


def letters() -> Path:
    """Trained on the documentation for seconds; what it says is nobody's concern."""
    return _trained("letters", "--steps", "20")


def wide_letters() -> Path:
    """The same with as many bytes of weights as SmolLM2 has here."""
    return _trained("wide-letters", "--steps", "1", "--units", "3584", "--width", "1024")


def _trained(name: str, *given: str) -> Path:
    folder = BUILD / name
    if not (folder / "saved_model.pb").exists():
        argv = [python_of("tensorflow"), "-I", str(ROOT / "tools" / "train_savedmodel.py"), str(folder)]
        subprocess.run([*argv, *given], check=True, stdout=subprocess.DEVNULL)
    return folder


SMOLLM2 = Model("SmolLM2-135M in bfloat16", smollm2_folder)
TINY = Model("a Llama of 3 million random weights", tiny_llama)
LETTERS = Model("a recurrent SavedModel of 3 million weights", letters)
WIDE = Model("a recurrent SavedModel of 64 million weights", wide_letters)
ROWS = (
    Row(
        engine="mlserver",
        model=Model("an ONNX graph of a Llama with 17 million random weights", tiny_onnx),
        ask=inference("model"),
    ),
    Row(
        engine="llama.cpp",
        model=Model("SmolLM2-135M Q4_1", smollm2),
        # As the gateway asks: without slot and prefix the engine called directly would use more CPU.
        ask=openai("small", id_slot=0, cache_prompt=True),
        options={"slots": 2, "context_tokens": 1024},
    ),
    Row(
        engine="transformers",
        model=SMOLLM2,
        small=TINY,
        ask=openai("model", may_just_end=True),
    ),
    Row(
        engine="vllm",
        model=SMOLLM2,
        small=TINY,
        ask=openai("model"),
        options={"context_tokens": 1024},
    ),
    Row(
        engine="torchserve",
        model=SMOLLM2,
        small=TINY,
        ask=torchserve,
    ),
    Row(
        engine="triton",
        model=SMOLLM2,
        small=TINY,
        ask=triton,
        options={"context_tokens": 1024, "slots": 2},
        protocol="REST",
    ),
    Row(
        engine="triton",
        model=SMOLLM2,
        small=TINY,
        ask=by_grpc.triton,
        options={"context_tokens": 1024, "slots": 2, "protocol": "grpc"},
        protocol="gRPC",
    ),
    Row(
        engine="tensorflow",
        model=WIDE,
        small=LETTERS,
        ask=tensorflow,
        options={"context_tokens": 1024, "chat": CHAT},
        protocol="REST",
    ),
    Row(
        engine="tensorflow",
        model=WIDE,
        small=LETTERS,
        ask=by_grpc.tensorflow,
        options={"context_tokens": 1024, "chat": CHAT, "protocol": "grpc"},
        protocol="gRPC",
    ),
)
