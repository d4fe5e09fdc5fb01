"""The benches' instruments count right: what the mock says, the load generator hears, no more and no less."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
EVENTS = 7

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))) or sys.platform != "linux",
    reason="the benches' instruments need Linux and a C compiler",
)


@pytest.fixture(scope="module")
def mock_port() -> Iterator[int]:
    subprocess.run([sys.executable, str(BENCH / "build.py")], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        str(BENCH / "build" / "mock"),
        "--port",
        str(port),
        "--events",
        str(EVENTS),
        "--interval-us",
        "1000",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as mock:
        assert mock.stdout is not None
        assert mock.stdout.readline() == b"listening\n"
        yield port
        mock.terminate()


def run_load(port: int, tmp_path: Path, *options: str, stream: bool = False) -> dict[str, float]:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": "mock", "messages": [], "stream": stream}))
    argv = [str(BENCH / "build" / "load"), "--port", str(port), "--body", str(body), *options]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    return dict(json.loads(done.stdout))


def test_every_request_of_a_closed_loop_is_answered(mock_port: int, tmp_path: Path):
    result = run_load(mock_port, tmp_path, "--requests", "500", "--connections", "8")

    assert (result["answered"], result["failed"]) == (500, 0)
    assert 0 < result["p50_us"] <= result["p99_us"]


def test_every_event_of_a_stream_is_counted(mock_port: int, tmp_path: Path):
    result = run_load(mock_port, tmp_path, "--requests", "20", "--connections", "4", stream=True)

    the_end = 3  # the finish reason, the usage, [DONE]
    assert result["events"] == 20 * (EVENTS + the_end)
    assert result["first_byte_p50_us"] < result["p50_us"]


def test_a_stream_takes_as_long_as_its_intervals(mock_port: int, tmp_path: Path):
    result = run_load(mock_port, tmp_path, "--requests", "5", "--connections", "1", stream=True)

    assert result["p50_us"] >= EVENTS * 1000


def test_a_constant_rate_is_kept(mock_port: int, tmp_path: Path):
    result = run_load(mock_port, tmp_path, "--rate", "200", "--seconds", "1", "--warmup", "0")

    assert result["count"] == pytest.approx(200, abs=5)


def test_a_refusal_is_a_failure_with_its_status(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as door:
        program = "import socket,sys; s=socket.socket(fileno=int(sys.argv[1])); c,_=s.accept(); c.recv(9999)"
        answer = "HTTP/1.1 503 Unavailable\\r\\ncontent-length: 2\\r\\n\\r\\nno"
        argv = [sys.executable, "-c", f"{program}; c.sendall(b'{answer}'); c.recv(1)", str(door.fileno())]
        with subprocess.Popen(argv, pass_fds=[door.fileno()]):
            options = ["--requests", "1", "--connections", "1"]
            result = run_load(door.getsockname()[1], tmp_path, *options)

    assert (result["answered"], result["failed"]) == (0, 1)
    assert "503" in str(result["fault"])
