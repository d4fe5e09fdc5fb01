"""A controller or a worker of a few lines: enough for the supervisor, and quick to start."""

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

STATUS = (
    b'{"phase":"ready","reasons":[],"version":"0","url":"","time":0,"uptime_s":0,"spec_revision":1,'
    b'"endpoints":[{"name":"smollm2","phase":"ready"}],"deployments":[],"replicas":[],"workers":[],'
    b'"processes":[],"journal":{},"disk_free_bytes":1,"last_errors":[]}'
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--settings")
    parser.add_argument("--heartbeat-fd", type=int)
    parser.add_argument("--socket-fd", type=int, default=-1)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args()
    if options.role == "broken":
        print("ValueError: the spec is wrong", flush=True)
        return 7
    if options.role == "worker-once":
        marker = Path(options.settings).with_name("once")
        if marker.exists():
            marker.unlink()
            return 7
        marker.touch()
    stopping: list[int] = []
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: stopping.append(number))
    print("started", options.role, os.getpid(), flush=True)
    if options.role == "controller":
        keys = Path(json.loads(Path(options.settings).read_text())["keys"])
        (keys / "admin.key").write_text("ph_a_b_c")
    if options.role == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.role != "never-ready":
        with contextlib.suppress(OSError):  # the supervisor of the test was killed meanwhile
            os.write(options.ready_fd, b"wr")
    listening = socket.socket(fileno=options.socket_fd) if options.socket_fd >= 0 else None
    while not stopping:
        watched = [reading, options.heartbeat_fd] + ([listening] if listening else [])
        ready, _, _ = select.select(watched, [], [], 30.0)
        if options.heartbeat_fd in ready and not os.read(options.heartbeat_fd, 4096):
            print("heartbeat lost", flush=True)
            break
        if listening in ready:
            answer(listening)
    if listening:
        listening.close()
    return 0


def answer(listening: socket.socket) -> None:
    try:
        connection, _ = listening.accept()
    except BlockingIOError:
        return
    with connection:
        connection.settimeout(2.0)
        request = connection.recv(65536)
        body = STATUS if b"/admin/v1/status" in request else b'{"status":"ready","reasons":[]}'
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)
        )
        time.sleep(0)


if __name__ == "__main__":
    sys.exit(main())
