"""
The process of one replica of `transformers serve`: `python _transformers_child.py CONFIG`.

Serves the handlers of transformers' own server on a private socket, with what that
server leaves open closed: one model that no request can change, two routes, as
many requests at once as there are slots, prompts that do not fit refused with both
counts, and fields that it would ignore refused by name. With one slot requests take
turns, for the server's seed is the process's; with more they are batched and have none.

Only transformers' environment is there: nothing of Pilothouse is imported.
"""

import asyncio
import copy
import json
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MODEL = "model"
"""A link in the working folder: a path of any spelling would be taken apart at its @ and colons."""
ROUTES = {"/v1/chat/completions", "/v1/completions"}
LEFT_OUT = {"stream_options", "user"}
"""It always streams the usage, and needs to know nobody."""
TAKEN = {
    "model",
    "messages",
    "prompt",
    "stream",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "tools",
}
ANY_TOKEN = 0
"""top_k: only what was asked for narrows the choice, where transformers' own default is 50."""
PAGE_TOKENS = 256
"""The cache of a batch is given out by pages; a driver counts a slot's memory by whole ones."""
PASS_TOKENS = 512
"""Of prompts that are read in one pass of the model; so long do tokens of other answers wait."""
GREEDY = 1e-6
"""A batch draws every token; divided by this, the likeliest one is certain."""


class Closed:
    """The server's ASGI app behind a door."""

    def __init__(self, app: App, *, slots: int) -> None:
        self._app = app
        self._slots = slots
        self._taken = TAKEN - {"seed"} if slots > 1 else TAKEN
        self._turn = asyncio.Semaphore(slots)
        self.present = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/load":
            running = min(self.present, self._slots)
            await answer(send, 200, {"running": running, "waiting": self.present - running})
        elif scope["path"] not in ROUTES:
            await answer(send, 501, fault("this model does not do that"))
        else:
            await self._generate(scope, receive, send)

    async def _generate(self, scope: Message, receive: Receive, send: Send) -> None:
        body = await whole(receive)
        if body is None:
            await answer(send, 400, fault("the body is no JSON object"))
            return
        if unknown := sorted(set(body) - self._taken - LEFT_OUT):
            await answer(send, 501, fault(f"not supported by this engine: {', '.join(unknown)}"))
            return
        data = json.dumps(
            {**{name: body[name] for name in body if name in self._taken}, "model": MODEL}
        ).encode()
        pending: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        self.present += 1
        try:
            async with self._turn:
                await self._app({**scope, "headers": headers}, replay, send)
        finally:
            self.present -= 1


async def whole(receive: Receive) -> dict[str, Any] | None:
    data, more = b"", True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        body = json.loads(data)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


async def answer(send: Send, status: int, content: dict[str, Any]) -> None:
    data = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def fault(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def bounded(handler: Any, context_tokens: int) -> Any:
    """A handler class of transformers' server that keeps to the context and samples as it was asked to."""
    from fastapi.responses import JSONResponse  # noqa: PLC0415 - there in the engine's environment alone

    class Bounded(handler):  # type: ignore[misc]
        def _streaming(self, request_id: str, model: Any, processor: Any, *rest: Any, **named: Any) -> Any:
            _, inputs, config = rest[:3]
            ids = inputs["input_ids"]
            prompt = len(ids) if isinstance(ids, list) else ids.shape[-1]
            room = context_tokens - prompt
            if room < 1:
                counts = {"n_prompt_tokens": prompt, "n_ctx": context_tokens}
                return JSONResponse(fault("too long", type="exceed_context_size_error", **counts), 400)
            config.max_new_tokens = min(config.max_new_tokens, room)
            return super()._streaming(request_id, model, processor, *rest, **named)

        def _build_generation_config(self, body: dict[str, Any], *rest: Any, **named: Any) -> Any:
            config = super()._build_generation_config(body, *rest, **named)
            config.do_sample = body.get("temperature") != 0
            if config.do_sample:
                config.top_k = ANY_TOKEN
            else:
                config.temperature = config.top_p = 1.0
            return config

    return Bounded


def batching(slots: int, context_tokens: int) -> Any:
    """The server's state in which requests are batched, each sampled as it was asked to."""
    from transformers import ContinuousBatchingConfig  # noqa: PLC0415 - as above
    from transformers.cli.serving.utils import CBGenerateManager, GenerationState  # noqa: PLC0415

    class Batched(CBGenerateManager):  # type: ignore[misc]
        """transformers samples a whole batch as its first request was; its batches can do better."""

        _cb: Any
        _sampling: dict[str, float]

        def init_cb(self, model: Any, asked: Any) -> None:
            is_first = self._cb is None
            if is_first:
                shared = copy.copy(asked)
                shared.do_sample = True
                shared.temperature = shared.top_p = 0.5  # what is neutral here, no request could change
                super().init_cb(model, shared)
                add = self._cb.add_request
                self._cb.add_request = lambda *given, **named: add(*given, **named, **self._sampling)
            # The server adds the request before it lets anybody else go on.
            self._sampling = {
                "temperature": float(asked.temperature or 1.0) if asked.do_sample else GREEDY,
                "top_p": float(asked.top_p or 1.0),
            }

    class Batching(GenerationState):  # type: ignore[misc]
        _cb_manager: Any

        def get_manager(self, model_id: str, **asked: bool) -> Any:
            if self._cb_manager is None:
                self._cb_manager, self._cb_model_id = Batched(cb_config=self._cb_config), model_id
            return super().get_manager(model_id, **asked)

    pages = slots * -(-context_tokens // PAGE_TOKENS)
    return Batching(
        continuous_batching=True,
        cb_config=ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=pages + slots,
            max_batch_tokens=max(PASS_TOKENS, slots),
            max_requests_per_batch=slots,
            allow_block_sharing=False,  # nobody learns by its time what another asked
            per_request_processors=True,
        ),
    )


def build(config: dict[str, Any]) -> App:
    """Load the model; returns the app that serves it."""
    import torch  # noqa: PLC0415 - as above
    from transformers.cli.serving.chat_completion import ChatCompletionHandler  # noqa: PLC0415
    from transformers.cli.serving.completion import CompletionHandler  # noqa: PLC0415
    from transformers.cli.serving.model_manager import ModelManager  # noqa: PLC0415
    from transformers.cli.serving.server import build_server  # noqa: PLC0415
    from transformers.cli.serving.utils import GenerationState  # noqa: PLC0415

    torch.set_num_threads(config["threads"])
    models = ModelManager(device=config["device"], dtype=config["dtype"], force_model=MODEL)
    slots, context_tokens = config["slots"], config["context_tokens"]
    state = batching(slots, context_tokens) if slots > 1 else GenerationState()
    chat, completion = (
        bounded(one, context_tokens)(models, state) for one in (ChatCompletionHandler, CompletionHandler)
    )
    absent: Any = None  # their routes are closed
    return Closed(build_server(models, chat, completion, absent, absent, absent, state), slots=slots)


def main() -> None:
    import uvicorn  # noqa: PLC0415 - as above

    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib is one more import before the log speaks
        config = json.load(file)
    os.symlink(config["model_path"], MODEL)  # noqa: PTH211
    app = build(config)
    print(f"pilothouse: ready at {config['socket']}", flush=True)
    uvicorn.run(app, uds=config["socket"], log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
