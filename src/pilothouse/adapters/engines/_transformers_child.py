"""
The process of one replica of `transformers serve`: `python _transformers_child.py CONFIG`.

Serves the handlers of transformers' own server on a private socket, with what that
server leaves open closed: one model that no request can change, two routes, one
request at a time (its seed and its model are the process's), prompts that do not
fit refused with both counts, and fields that it would ignore refused by name.

Only transformers' environment is there: nothing of Pilothouse is imported.
"""

import asyncio
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


class Closed:
    """The server's ASGI app behind a door."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._turn = asyncio.Lock()
        self.present = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/load":
            running = min(self.present, 1)
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
        if unknown := sorted(set(body) - TAKEN - LEFT_OUT):
            await answer(send, 501, fault(f"not supported by this engine: {', '.join(unknown)}"))
            return
        data = json.dumps({**{name: body[name] for name in body if name in TAKEN}, "model": MODEL}).encode()
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
            prompt = inputs["input_ids"].shape[-1]
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
    state = GenerationState()
    chat, completion = (
        bounded(one, config["context_tokens"])(models, state)
        for one in (ChatCompletionHandler, CompletionHandler)
    )
    absent: Any = None  # their routes are closed
    return Closed(build_server(models, chat, completion, absent, absent, absent, state))


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
