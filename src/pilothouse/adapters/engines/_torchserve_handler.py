"""
The handler of a replica of TorchServe: what runs in its worker, as the code of an archive of ours.

The one idea: TorchServe tells a handler nothing of who hung up, so callers hold a
line to `callers.sock` for as long as they listen, and an answer whose line is gone
ends at its next token. Only TorchServe's environment is there, and the files that
`own_code` put beside this one.
"""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOCKET = "callers.sock"
"""In the replica's folder; this file is at store/<model>/ in it."""
LONGEST_ID = 64
HEARD = b"."
ASKS_LOAD = b"?"
GONE = b'{"error":"gone"}\n'
"""For a caller without a line: it hung up, or its line was to a worker that died."""
LAST_WORDS_S = 1.0
"""How long TorchServe may take to pass on what was printed."""


class Callers:
    """Who listens: an id for each line that is open."""

    def __init__(self, path: str) -> None:
        self._present: set[str] = set()
        self.served = ""
        """Whose answer is being generated."""
        Path(path).unlink(missing_ok=True)  # of a worker that was killed
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(path)
        self._door.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def has(self, caller: str) -> bool:
        return caller in self._present

    def load(self) -> dict[str, int]:
        running = int(bool(self.served))
        return {"running": running, "waiting": max(0, len(self._present - {self.served}))}

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._door.accept()
            except OSError:  # no more files: those who have a line keep it
                time.sleep(0.1)
                continue
            threading.Thread(target=self._follow, args=(line,), daemon=True).start()

    def _follow(self, line: socket.socket) -> None:
        """From a line's first word to its end, which is the caller's."""
        caller = ""
        try:
            with line:
                word = line.recv(LONGEST_ID)
                if word == ASKS_LOAD:
                    line.sendall(json.dumps(self.load()).encode())
                    return
                caller = word.decode()
                self._present.add(caller)
                line.sendall(HEARD)
                line.recv(1)
        except (OSError, UnicodeDecodeError):
            pass  # a line that breaks has ended too
        finally:
            self._present.discard(caller)


class Handler:
    """Of the one model of this worker."""

    def initialize(self, context: Any) -> None:
        logging.getLogger().setLevel(logging.WARNING)  # a line for each request says nothing here
        options = context.model_yaml_config["pilothouse"]
        try:
            from pilothouse_model._generator import Generator  # noqa: PLC0415

            self._generator = Generator(
                options["folder"], threads=options["threads"], context_tokens=options["context_tokens"]
            )
        except Exception as exc:  # noqa: BLE001 - the server says ready and tries for ever: so it is ended, with the reason
            give_up(exc)
        self._callers = Callers(str(Path(__file__).parents[2] / SOCKET))

    def answer(self, request: dict[str, Any], say: Callable[[bytes], None]) -> bytes:
        """The last line of an answer; those before it are said as they come."""
        caller = request["caller"]
        self._callers.served = caller
        try:
            if self._callers.has(caller):
                for piece in self._generator.generate(request, lambda: not self._callers.has(caller)):
                    line = json.dumps(piece).encode() + b"\n"
                    if "finish" in piece or "error" in piece:
                        return line
                    say(line)
            return GONE
        finally:
            self._callers.served = ""


def give_up(reason: Exception) -> None:
    """End the server: a worker that cannot load would be started again and again behind an open port."""
    traceback.print_exc()
    print(
        f"pilothouse: the model cannot be loaded: {type(reason).__name__}: {reason}",
        file=sys.stderr,
        flush=True,
    )
    time.sleep(LAST_WORDS_S)
    server = os.getppid()
    os.kill(server, signal.SIGTERM)
    while os.getppid() == server:  # until it is gone nothing else is said
        time.sleep(0.05)
    sys.exit(1)


HANDLER = Handler()


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[bytes] | None:
    """What TorchServe calls: without data to load the model, then for one request at a time."""
    if data is None:
        HANDLER.initialize(context)
        return None
    from ts.handler_utils.utils import (  # type: ignore[import-not-found]  # noqa: PLC0415 - there alone
        send_intermediate_predict_response,
    )

    def say(line: bytes) -> None:
        send_intermediate_predict_response([line], context.request_ids, "", 200, context)

    return [HANDLER.answer(data[0]["body"], say)]
