"""
A provider that does wrong on demand: what the last message asks for is what it does.

It answers probes and all else well, so that it stays in use.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD_USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
SMILE = "\U0001f600"


def call(name: str | None, arguments: str, *, index: int = 0, id_: str | None = "c1") -> dict[str, Any]:
    step: dict[str, Any] = {"index": index, "type": "function", "function": {"arguments": arguments}}
    if name is not None:
        step["function"]["name"] = name
    if id_ is not None:
        step["id"] = id_
    return step


def whole(message: dict[str, Any], *, finish: str = "stop", usage: Any = GOOD_USAGE) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps(body if usage is None else {**body, "usage": usage}).encode()


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %s\n\n" % json.dumps({"id": "x", "choices": [choice]}).encode()


def last(usage: Any = GOOD_USAGE) -> bytes:
    told = b"" if usage is None else b"data: %s\n\n" % json.dumps({"choices": [], "usage": usage}).encode()
    return told + b"data: [DONE]\n\n"


def stream(*deltas: dict[str, Any], finish: str = "stop", usage: Any = GOOD_USAGE) -> bytes:
    return b"".join(event(delta) for delta in deltas) + event({}, finish) + last(usage)


TEXT = {"content": "Yes."}
TWICE = [call("look", "{}"), call("look", "{}", index=1)]
NO_JSON = [call("look", '{"at": sky')]
ERROR = b'{"error":{"message":"out of credit, key sk-secret","type":"x","code":"y"}}'

ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "good": (whole(TEXT), stream(TEXT)),
    "half an event": (whole(TEXT)[:-20], event(TEXT) + event(TEXT)[:-9]),
    "no end": (b"", event(TEXT)),
    "text behind the end": (whole(TEXT), event(TEXT, "stop") + event(TEXT) + last()),
    "a call that never began": (
        whole({"content": None, "tool_calls": [call(None, "{}", id_=None)]}, finish="tool_calls"),
        stream({"tool_calls": [call(None, "{}", id_=None)]}, finish="tool_calls"),
    ),
    "two calls of one id": (
        whole({"content": None, "tool_calls": TWICE}, finish="tool_calls"),
        stream({"tool_calls": TWICE[:1]}, {"tool_calls": TWICE[1:]}, finish="tool_calls"),
    ),
    "arguments that are no JSON": (
        whole({"content": None, "tool_calls": NO_JSON}, finish="tool_calls"),
        stream({"tool_calls": NO_JSON}, finish="tool_calls"),
    ),
    "no usage": (whole(TEXT, usage=None), stream(TEXT, usage=None)),
    "usage below zero": (
        whole(TEXT, usage={"prompt_tokens": -5, "completion_tokens": 2}),
        stream(TEXT, usage={"prompt_tokens": -5, "completion_tokens": 2}),
    ),
    "usage without end": (
        whole(TEXT, usage={"prompt_tokens": 5, "completion_tokens": 10**15}),
        stream(TEXT, usage={"prompt_tokens": 5, "completion_tokens": 10**15}),
    ),
    "an error in a good answer": (ERROR, b"data: %s\n\n" % ERROR + b"data: [DONE]\n\n"),
    "an error behind some text": (ERROR, event(TEXT) + b"data: %s\n\n" % ERROR),
    "a page of a proxy": (b"<html>502</html>", b"<html>502</html>"),
    "nothing": (b"", b""),
    "half a character": (
        whole(TEXT).replace(b"Yes.", b"\\ud83d"),
        event(TEXT).replace(b"Yes.", b"\\ud83d") + event(TEXT).replace(b"Yes.", b"\\ude00") + last(),
    ),
    "a split character": (whole({"content": SMILE}), stream({"content": SMILE})),
}
"""By what is asked for: the whole answer, and the stream."""


class _Wrong(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "messages" not in asked:
            choice = {"index": 0, "text": "Hi", "finish_reason": "stop"}
            probed = json.dumps({"choices": [choice], "usage": GOOD_USAGE}).encode()
            self._pieces([b"data: %s\n\ndata: [DONE]\n\n" % probed])
            return
        said = asked["messages"][-1]["content"]
        kind = said if isinstance(said, str) else said[0]["text"]
        whole_, streamed = ANSWERS.get(kind, ANSWERS["good"])
        if not asked.get("stream"):
            self._answer(whole_)
        elif kind == "a split character":
            self._pieces([bytes([byte]) for byte in streamed.replace(b"\\ud83d\\ude00", SMILE.encode())])
        else:
            self._pieces([streamed])

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pieces(self, pieces: list[bytes]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            if piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def misbehaving_upstream() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Wrong)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
