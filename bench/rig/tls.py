"""Requests over TLS, for the price of it: `load` speaks plain TCP, so this client pays with its own core."""

import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

from rig.machine import LOAD_CORE, pinned
from rig.peers import Peer

BODY = b'{"model":"mock","messages":[{"role":"user","content":"Hello"}]}'
CONNECTIONS = 8


def ask(peer: Peer, seconds: float, *, is_tls: bool) -> int:
    """Answers within that time, over kept connections, asked by a process on the other core."""
    argv = [sys.executable, "-m", "rig.tls", str(peer.port), str(seconds), str(int(is_tls)), peer.headers[0]]
    here = Path(__file__).parents[1]
    done = subprocess.run(pinned(LOAD_CORE, argv), capture_output=True, check=False, text=True, cwd=here)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return int(done.stdout)


def _ask_on(port: int, ends: float, header: str, *, is_tls: bool, counts: list[int]) -> None:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", header, f"Content-Length: {len(BODY)}"]
    head = "\r\n".join([*lines, "", ""])
    door: socket.socket = socket.create_connection(("127.0.0.1", port))
    if is_tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = (
            False,
            ssl.CERT_NONE,
        )  # its certificate is of a minute ago
        door = context.wrap_socket(door)
    answered = 0
    while time.monotonic() < ends:
        door.sendall(head.encode() + BODY)
        got = door.recv(65536)
        if not got.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(repr(got[:200]))
        answered += 1
    counts.append(answered)


def main() -> None:
    port, seconds, is_tls, header = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1", sys.argv[4]
    counts: list[int] = []
    ends = time.monotonic() + seconds
    threads = [
        threading.Thread(
            target=_ask_on, args=(port, ends, header), kwargs={"is_tls": is_tls, "counts": counts}
        )
        for _ in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(counts) != CONNECTIONS:
        raise SystemExit("a connection failed")
    print(sum(counts))


if __name__ == "__main__":
    main()
