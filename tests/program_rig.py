"""The real program, started as a user starts it, in a home that is thrown away."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.error import HTTPError
from urllib.request import urlopen

READY_S = 120.0
STOP_S = 60.0
_COMMAND = [str(Path(sys.executable).with_name("pilothouse"))]


@dataclass(frozen=True)
class Program:
    """A server that runs."""

    url: str
    admin_key: str
    home: Path


@contextmanager
def program(
    home: Path,
    spec: str,
    *flags: str,
    secrets: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    ready_s: float = READY_S,
) -> Iterator[Program]:
    """
    `pilothouse up` with this spec, for the block; it begins when every endpoint serves.

    Args:
        home: An empty folder; its keys lie beside it.
        spec: The text of a spec file.
        flags: More options of `up`.
        secrets: Host and value of those that the spec names.
        ready_s: So long may all that is declared take.
    """
    file = home.with_suffix(".yaml")
    file.write_text(spec)
    argv = [*_COMMAND, "up", "--home", str(home), "--port", "0", "--json", *flags]
    with subprocess.Popen(
        [*argv, "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        text=True,
    ) as process:
        try:
            for name, (host, value) in secrets.items():
                _set_secret(home, name, host=host, value=value)
            ready = _ready(process, ready_s)
            _wait_for_all(ready["url"], ready_s)
            yield Program(ready["url"], Path(ready["admin_key_file"]).read_text().strip(), home)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}


def _set_secret(home: Path, name: str, *, host: str, value: str) -> None:
    """As soon as the server can be asked; what needs it is not ready before."""
    argv = [*_COMMAND, "secret", "set", name, "--host", host, "--home", str(home)]
    ends = time.monotonic() + READY_S
    while True:
        done = subprocess.run(
            argv, input=value, env=_environment(), capture_output=True, text=True, timeout=60, check=False
        )
        if not done.returncode:
            return
        assert time.monotonic() < ends, done.stderr
        time.sleep(0.1)


def _ready(process: "subprocess.Popen[str]", ready_s: float) -> dict[str, str]:
    """The event that ends the start."""
    said: list[str] = []
    ends = time.monotonic() + ready_s
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if time.monotonic() > ends:
            break
        if line.startswith("{") and (event := json.loads(line))["event"] == "ready":
            return event
    raise AssertionError("it did not become ready:\n" + "".join(said[-20:]))


def _wait_for_all(url: str, ready_s: float) -> None:
    """`up` is ready when it serves something; here all that is declared must."""
    ends = time.monotonic() + ready_s
    reasons: list[str] = ["not asked yet"]
    while reasons:
        assert time.monotonic() < ends, f"not all of it became ready: {reasons}"
        time.sleep(0.02)
        try:
            with urlopen(f"{url}/readyz", timeout=5) as answer:
                reasons = json.load(answer)["reasons"]
        except HTTPError as exc:
            reasons = [f"status {exc.code}"]
