"""A model server that answers at once, for tests of the whole program: no engine, no model, only HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "quick",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
).encode()

VECTOR = json.dumps(
    {
        "object": "list",
        "model": "quick",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
).encode()

TEXT = json.dumps(
    {
        "id": "x",
        "object": "text_completion",
        "created": 1,
        "model": "quick",
        "choices": [{"index": 0, "text": "Yes.", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
).encode()

WHOLE = {"/v1/chat/completions": ANSWER, "/v1/completions": TEXT, "/v1/embeddings": VECTOR}

STREAMED = (
    b"".join(
        b"data: %s\n\n"
        % json.dumps(
            {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "quick", **part}
        ).encode()
        for part in (
            {
                "choices": [
                    {"index": 0, "delta": {"role": "assistant", "content": "Yes."}, "finish_reason": None}
                ]
            },
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        )
    )
    + b"data: [DONE]\n\n"
)


class _Quick(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer(STREAMED if asked.get("stream") else WHOLE[self.path])

    def do_GET(self) -> None:
        self._answer(b'{"object":"list","data":[{"id":"quick","object":"model"}]}')

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if body == STREAMED else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def quick_upstream() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Quick)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
