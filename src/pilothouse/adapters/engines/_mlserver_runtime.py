"""
The model class that MLServer runs: ONNX through onnxruntime, as a folder of Optimum or sentence-transformers.

Runs in MLServer's environment, named in `model-settings.json`: nothing of Pilothouse
is imported. Belongs here: texts to tokens and back, pooling, sampling. Does not: the
server and its doors (`_mlserver_child`).

A text model takes `text_input`, or `messages` as JSON for its own chat template, and
says `text_output` in pieces; a cache (`past_key_values.*`) is used where the graph
has one. An embedder takes texts and gives `embedding`. What cannot be done is said
as a parameter `fault`, for a stream has no status of its own.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

STEP_TOKENS = 64
"""Of a prompt between two looks at whether anybody still waits for it."""
BATCH_TEXTS = 16
_PAST, _PRESENT = "past_key_values.", "present."
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Fault(Exception):
    """What cannot be done, in parameters of an answer."""

    def __init__(self, fault: str, **numbers: int) -> None:
        super().__init__(fault)
        self.parameters: dict[str, Any] = {"fault": fault, **numbers}


class OnnxModel(MLModel):  # type: ignore[misc]  # of an environment that is not looked at
    """`parameters.extra`: `threads`, `context_tokens`, `places`."""

    async def load(self) -> bool:
        extra = self.settings.parameters.extra
        self._places = asyncio.Semaphore(extra["places"])
        self._most: int = extra["places"]
        self.present = 0
        await asyncio.to_thread(self._open, extra)
        return True

    def _open(self, extra: dict[str, int]) -> None:
        folder = Path(self.settings.parameters.uri)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = extra["threads"]
        options.inter_op_num_threads = 1
        (graph,) = sorted(folder.rglob("*.onnx"))
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        self._texts = Texts(session, tokenizer, folder, extra["context_tokens"])
        self._vectors = Vectors(session, tokenizer, folder, extra["context_tokens"])

    @property
    def running(self) -> int:
        return min(self.present, self._most)

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if not self._texts.speaks:
            return await self._embedded(payload)
        pieces = [piece async for piece in self._said(payload)]
        text = "".join(text for text, _ in pieces)
        return self._answer(text, pieces[-1][1])

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            said = self._said(payload)
            try:
                async for text, more in said:
                    yield self._answer(text, more)
            finally:
                await said.aclose()

    async def _said(self, payload: InferenceRequest) -> Any:
        """Pieces of text and what is said beside them; each is made in a thread while the loop goes on."""
        asked = {tensor.name: _texts_of(tensor) for tensor in payload.inputs}
        wishes = payload.parameters.model_dump() if payload.parameters else {}
        is_gone = threading.Event()
        self.present += 1
        try:
            async with self._places:
                pieces = self._texts.generate(asked, wishes, is_gone)
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    yield piece
        except Fault as exc:
            yield "", exc.parameters
        finally:
            is_gone.set()
            self.present -= 1

    async def _embedded(self, payload: InferenceRequest) -> InferenceResponse:
        texts = [text for tensor in payload.inputs for text in _texts_of(tensor)]
        self.present += 1
        try:
            async with self._places:
                vectors, tokens = await asyncio.to_thread(self._vectors.make, texts)
        except Fault as exc:
            return self._answer("", exc.parameters)
        finally:
            self.present -= 1
        output = ResponseOutput(
            name="embedding", datatype="FP32", shape=list(vectors.shape), data=vectors.ravel().tolist()
        )
        return InferenceResponse(model_name=self.name, outputs=[output], parameters={"prompt_tokens": tokens})

    def _answer(self, text: str, more: dict[str, Any]) -> InferenceResponse:
        output = ResponseOutput(name="text_output", datatype="BYTES", shape=[1], data=[text])
        return InferenceResponse(model_name=self.name, outputs=[output], parameters=more)


class Texts:
    """A graph that gives logits."""

    def __init__(self, session: Any, tokenizer: Any, folder: Path, limit: int) -> None:
        self._session, self._tokenizer, self._limit = session, tokenizer, limit
        self._inputs = {one.name: one for one in session.get_inputs()}
        self._outputs = [one.name for one in session.get_outputs()]
        self._ends = _ends(folder)
        self._template = _template(folder)

    @property
    def speaks(self) -> bool:
        return "logits" in self._outputs

    def generate(
        self, asked: dict[str, list[str]], wishes: dict[str, Any], gone: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if not self.speaks:
            raise Fault("no_text")
        ids = self._tokenizer.encode(self._prompt(asked), add_special_tokens="messages" not in asked).ids
        if len(ids) >= self._limit:
            raise Fault("too_long", prompt_tokens=len(ids), limit=self._limit)
        most = min(int(wishes.get("max_tokens") or self._limit), self._limit - len(ids))
        stops = json.loads(wishes.get("stop") or "[]")
        choose = Choice(wishes)
        decoder = DecodeStream(skip_special_tokens=True)
        said, made, reason = "", 0, "length"
        for token in self._tokens(ids, choose, gone):
            made += 1
            if token in self._ends:
                reason = "stop"
                break
            piece = decoder.step(self._tokenizer, token) or ""
            said += piece
            if any(stop in said for stop in stops):
                yield piece, _ending("stop", ids, made)
                return
            if piece:
                yield piece, {}
            if made >= most:
                break
        if gone.is_set():
            return
        yield "", _ending(reason, ids, made)

    def _prompt(self, asked: dict[str, list[str]]) -> str:
        if "messages" not in asked:
            return asked["text_input"][0]
        if self._template is None:
            raise Fault("no_template")
        try:
            messages = json.loads(asked["messages"][0])
            return str(self._template.render(messages=messages, add_generation_prompt=True))
        except (TemplateError, ValueError, TypeError, LookupError) as exc:  # the template refuses them
            raise Fault("template_refused") from exc

    def _tokens(self, ids: list[int], choose: "Choice", gone: Any) -> Iterator[int]:
        """The prompt goes in by steps where the graph has a cache; each answer's token by itself."""
        past = self._empty()
        left, done = list(ids), 0
        while not gone.is_set():
            part = left[:STEP_TOKENS] if past else ids
            logits, past = self._run(part, done if past else 0, past)
            if past:
                done += len(part)
                left = left[len(part) :]
                if left:
                    continue
            token = choose.token(logits[0, -1].astype(np.float64))
            yield token
            left = [token]
            ids = [*ids, token]

    def _run(self, part: list[int], done: int, past: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        known = {
            "input_ids": np.array([part], np.int64),
            "attention_mask": np.ones((1, done + len(part)), np.int64),
            "position_ids": np.arange(done, done + len(part), dtype=np.int64)[None],
        }
        feed = {name: value for name, value in known.items() if name in self._inputs} | past
        found = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
        kept = {
            _PAST + name.removeprefix(_PRESENT): found[name] for name in found if name.startswith(_PRESENT)
        }
        return found["logits"], kept

    def _empty(self) -> dict[str, Any]:
        return {
            name: np.zeros([1, one.shape[1], 0, one.shape[3]], _TYPES[one.type])
            for name, one in self._inputs.items()
            if name.startswith(_PAST)
        }


class Choice:
    """Which token follows. The order of narrowing is OpenAI's: temperature, then the narrowings."""

    def __init__(self, wishes: dict[str, Any]) -> None:
        heat = wishes.get("temperature")
        self._heat = 1.0 if heat is None else float(heat)
        self._top_k = int(wishes.get("top_k") or 0)
        self._top_p = float(wishes.get("top_p") or 1.0)
        self._chance = np.random.default_rng(wishes.get("seed"))

    def token(self, logits: Any) -> int:
        if self._heat <= 0:
            return int(logits.argmax())
        logits = logits / self._heat
        if 0 < self._top_k < len(logits):
            logits = np.where(logits < np.sort(logits)[-self._top_k], -np.inf, logits)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        if self._top_p < 1.0:
            order = np.argsort(-shares)
            kept = np.cumsum(shares[order]) - shares[order] < self._top_p
            shares[order[~kept]] = 0.0
            shares /= shares.sum()
        return int(self._chance.choice(len(shares), p=shares))


class Vectors:
    """A graph that gives a vector a token, or `sentence_embedding`."""

    def __init__(self, session: Any, tokenizer: Any, folder: Path, limit: int) -> None:
        self._session, self._tokenizer, self._limit = session, tokenizer, limit
        self._inputs = {one.name for one in session.get_inputs()}
        self._outputs = [one.name for one in session.get_outputs()]
        pooling = _document(folder / "1_Pooling" / "config.json")
        self._by_cls = bool(pooling.get("pooling_mode_cls_token"))
        modules = _document(folder / "modules.json", [])
        self._normalizes = any(one["type"].endswith("Normalize") for one in modules)
        tokenizer.no_padding()

    def make(self, texts: list[str]) -> tuple[Any, int]:
        """(texts, size), and how many tokens they had."""
        ids = [self._tokenizer.encode(text).ids for text in texts]
        longest = max(map(len, ids))
        if longest > self._limit:
            raise Fault("too_long", prompt_tokens=longest, limit=self._limit)
        # Texts of a length together, so that little is padded; then in their order again.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        made: list[Any] = [None] * len(ids)
        for begin in range(0, len(order), BATCH_TEXTS):
            batch = order[begin : begin + BATCH_TEXTS]
            for i, vector in zip(batch, self._run([ids[i] for i in batch]), strict=True):
                made[i] = vector
        return np.stack(made), sum(map(len, ids))

    def _run(self, ids: list[list[int]]) -> Any:
        size = max(map(len, ids))
        known = {
            name: np.zeros((len(ids), size), np.int64)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        for i, row in enumerate(ids):
            known["input_ids"][i, : len(row)] = row
            known["attention_mask"][i, : len(row)] = 1
        feed = {name: value for name, value in known.items() if name in self._inputs}
        found = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
        if "sentence_embedding" in found:
            return found["sentence_embedding"]
        hidden = found[self._outputs[0]]
        mask = known["attention_mask"][:, :, None].astype(hidden.dtype)
        pooled = hidden[:, 0] if self._by_cls else (hidden * mask).sum(1) / mask.sum(1)
        if self._normalizes:
            pooled = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return pooled.astype(np.float32)


def _ending(reason: str, ids: list[int], made: int) -> dict[str, Any]:
    return {"finish_reason": reason, "prompt_tokens": len(ids), "completion_tokens": made}


def _texts_of(tensor: Any) -> list[str]:
    data = tensor.data.root if hasattr(tensor.data, "root") else tensor.data
    data = data if isinstance(data, list) else [data]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in data]


def _ends(folder: Path) -> set[int]:
    for name in ("generation_config.json", "config.json"):
        ends = _document(folder / name).get("eos_token_id")
        if ends is not None:
            return set(ends) if isinstance(ends, list) else {ends}
    return set()


def _template(folder: Path) -> Any:
    apart = folder / "chat_template.jinja"
    text = (
        apart.read_text()
        if apart.exists()
        else _document(folder / "tokenizer_config.json").get("chat_template")
    )
    # A template is a program of the model's: in the sandbox it reaches nothing, as in transformers.
    return (
        ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(text)
        if text
        else None
    )


def _document(path: Path, default: Any = None) -> Any:
    return json.loads(path.read_text()) if path.exists() else ({} if default is None else default)
