"""
Generates text with transformers, for model servers whose model code is ours.

Runs in the engine's own environment, as a copy beside `_stops.py` (`_own_code`): torch
and transformers are there, nothing of Pilothouse is. The one idea: a loop of our own
rather than the library's, so that every token asks whether somebody still listens.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from ._stops import StopCutter

PROMPT_PIECE = 256
"""Tokens of a prompt read between two looks at `cancelled`: tens of milliseconds for a small model."""
CUT_CHARACTER = "\ufffd"
"""How a tokenizer shows bytes that are no character yet."""
LONGEST_CHARACTER = 4
"""Bytes of one in UTF-8: as many tokens that make none will never make one."""

Request = dict[str, Any]
Piece = dict[str, Any]


class Generator:
    """One model in memory."""

    def __init__(self, folder: str, *, threads: int, context_tokens: int) -> None:
        """
        Args:
            folder: With safetensors; nothing else is loaded, fetched or run from it.
            context_tokens: Most tokens of prompt and answer together.
        """
        torch.set_num_threads(threads)
        here = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer = AutoTokenizer.from_pretrained(folder, **here)
        self.model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **here)
        self.model.eval()
        self._context_tokens = context_tokens
        ends = self.model.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}

    def generate(self, request: Request, cancelled: Callable[[], bool]) -> Iterator[Piece]:
        """
        Answer one request.

        Args:
            request: `prompt` or `messages` (roles and texts), and maybe `max_tokens`,
                `temperature`, `top_p`, `top_k`, `seed`, `stop` (texts).
            cancelled: Asked before each token and each piece of the prompt; once true, the answer just ends.

        Yields:
            `{"text"}` of whole characters, then `{"text": "", "finish", "prompt_tokens",
            "completion_tokens"}`; or nothing but one `{"error"}`: `too_long` with
            `prompt_tokens` and `limit`, or `no_chat_template`.
        """
        answer = self.begin(request)
        if isinstance(answer, dict):
            yield answer
            return
        cache = self.new_cache()
        while not answer.is_over and not cancelled():
            logits = self.read(answer.take_piece(), cache)
            if not answer.ahead:
                yield from answer.go_on(logits)

    def begin(self, request: Request) -> "Answer | Piece":
        """The answer before its first token, or why there will be none."""
        if "messages" in request and not self._tokenizer.chat_template:
            return {"error": "no_chat_template"}
        prompt = self._tokens(request)
        room = self._context_tokens - len(prompt)
        if room < 1:
            return {"error": "too_long", "prompt_tokens": len(prompt), "limit": self._context_tokens}
        return Answer(prompt, request, room=room, tokenizer=self._tokenizer, ends=self._ends)

    def new_cache(self) -> Any:
        return DynamicCache(config=self.model.config)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def read(self, tokens: list[int], cache: Any) -> Any:
        """Logits of shape (vocabulary,) after these tokens, which `cache` then holds."""
        said = self.model(
            input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return said.logits[0, -1]

    def _tokens(self, request: Request) -> list[int]:
        if "messages" not in request:
            return list(self._tokenizer(request["prompt"])["input_ids"])
        text = self._tokenizer.apply_chat_template(
            request["messages"], add_generation_prompt=True, tokenize=False
        )
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


class Answer:
    """One request's: what is still to be read, and what was said. `is_over` once its end is said."""

    def __init__(
        self, prompt: list[int], request: Request, *, room: int, tokenizer: Any, ends: set[int]
    ) -> None:
        self.ahead = prompt
        """Tokens that the model has not read."""
        self.is_over = False
        self._prompt_tokens = len(prompt)
        self._count = 0
        self._limit = min(request.get("max_tokens") or room, room)
        self._pick = _Picker(request)
        self._text = _Text(tokenizer, request.get("stop") or ())
        self._ends = ends

    def take_piece(self) -> list[int]:
        piece, self.ahead = self.ahead[:PROMPT_PIECE], self.ahead[PROMPT_PIECE:]
        return piece

    def go_on(self, logits: Any) -> Iterator[Piece]:
        """Choose the next token, of logits of shape (vocabulary,), and give what it says."""
        token = self._pick(logits.float())
        self._count += 1
        if token in self._ends:
            yield from self._end("stop")
            return
        if text := self._text.feed(token):
            yield {"text": text}
        if self._text.has_stopped or self._count == self._limit:
            yield from self._end("length")
        else:
            self.ahead = [token]

    def _end(self, finish: str) -> Iterator[Piece]:
        self.is_over = True
        if rest := self._text.close():
            yield {"text": rest}
        yield {
            "text": "",
            "finish": "stop" if self._text.has_stopped else finish,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._count,
        }


class _Picker:
    """Chooses tokens as one request asked for."""

    def __init__(self, request: Request) -> None:
        self._temperature = _or(request.get("temperature"), 1.0)
        self._top_p = _or(request.get("top_p"), 1.0)
        self._top_k = request.get("top_k") or 0
        self._chance = torch.Generator()
        if (seed := request.get("seed")) is None:
            self._chance.seed()
        else:
            self._chance.manual_seed(seed)

    def __call__(self, logits: Any) -> int:
        """Of logits of shape (vocabulary,)."""
        if self._temperature <= 0:
            return int(logits.argmax())
        scores, order = (logits / self._temperature).sort(descending=True)
        if self._top_k:
            scores, order = scores[: self._top_k], order[: self._top_k]
        shares = scores.softmax(-1)
        if self._top_p < 1:
            is_beyond = shares.cumsum(-1) - shares >= self._top_p
            is_beyond[0] = False
            shares[is_beyond] = 0
        return int(order[torch.multinomial(shares, 1, generator=self._chance)])


class _Text:
    """Makes text of tokens: whole characters only, and nothing of a stop text."""

    def __init__(self, tokenizer: Any, stops: Any) -> None:
        self._tokenizer = tokenizer
        self._cutter = StopCutter(stops)
        self._tokens: list[int] = []
        self._said = 0
        """Tokens whose text is out; they are read along, for the space that they may bring."""

    @property
    def has_stopped(self) -> bool:
        return self._cutter.has_stopped

    def feed(self, token: int) -> str:
        self._tokens.append(token)
        fresh = self._fresh()
        if fresh.endswith(CUT_CHARACTER) and len(self._tokens) - self._said < LONGEST_CHARACTER:
            return ""
        self._tokens, self._said = self._tokens[self._said :], len(self._tokens) - self._said
        return self._cutter.feed(fresh)

    def close(self) -> str:
        """What was held back; half a character at the very end is left out."""
        if self.has_stopped:
            return ""
        return self._cutter.feed(self._fresh().rstrip(CUT_CHARACTER)) + self._cutter.close()

    def _fresh(self) -> str:
        known = self._decoded(self._tokens[: self._said])
        return self._decoded(self._tokens)[len(known) :]

    def _decoded(self, tokens: list[int]) -> str:
        return str(
            self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
