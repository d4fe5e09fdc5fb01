"""
The documents do what they say: every shell block of README and tutorial is run,
in order, as a new user would, in a home of its own.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures_postgres import PostgresServer

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
POSTGRESQL = ROOT / "docs" / "howto" / "postgresql.md"
RESTART = ROOT / "docs" / "howto" / "restart-without-downtime.md"
TUTORIAL = ROOT / "docs" / "tutorial" / "first-endpoint.md"
READY_S = 120.0
"""The first start fetches a model of 93 MB."""

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def blocks(path: Path, language: str = "sh") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A user with an empty home; the package index is reached as the machine is set up to reach it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PILOTHOUSE_", "XDG_", "PYTEST_"))}
    return {**kept, "HOME": str(tmp_path)}


@pytest.fixture
def port() -> int:
    """A free port in the place of the documents' own, which the machine's user may have taken."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(script: str, env: dict[str, str], timeout_s: float = READY_S) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def running(command: str, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command that stays, wait until it prints its curl line, and end it as a person would."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + READY_S
    try:
        while "/v1/chat/completions" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def test_the_readme_works_from_top_to_bottom(env: dict[str, str], port: int, tmp_path: Path) -> None:
    up, curl, test, *rest = (block.strip().replace("8420", str(port)) for block in blocks(README))
    assert (up, test) == ("make up", "make test")

    with running(f'{up} ARGS="--port {port}"', env, tmp_path / "up.log"):
        assert '"finish_reason"' in run(curl, env)
        for block in rest:
            run(block, env)


def test_the_curl_line_that_up_prints_works_when_pasted(
    env: dict[str, str], port: int, tmp_path: Path
) -> None:
    with running(f'make up ARGS="--port {port}"', env, tmp_path / "up.log"):
        text = (tmp_path / "up.log").read_text()
        line = text[text.index("curl ") :]
        line = re.match(r"(?:.*\\\n)*.*\n", line)[0]  # type: ignore[index] # with its continuation lines

        assert '"choices"' in run(line, env)


def test_the_tutorial_works_from_top_to_bottom(env: dict[str, str], port: int, tmp_path: Path) -> None:
    key_file = 'import os\nKEY_FILE = os.environ["PILOTHOUSE_HOME"] + "-keys/admin.key"\n'
    (tmp_path / "sdk.py").write_text(key_file + blocks(TUTORIAL, "python")[0].replace("8421", str(port)))
    script = "\n".join(blocks(TUTORIAL)).replace("8421", str(port))
    script = script.replace(
        "pilothouse team create", f'python "{tmp_path}/sdk.py"\npilothouse team create', 1
    )
    ending = "trap 'pilothouse down >/dev/null 2>&1 || true' EXIT\n"

    said = run(script.replace("pilothouse up --detach", f"{ending}pilothouse up --detach", 1), env)

    assert "data: [DONE]" in said
    assert '"code":"invalid_api_key"' in said
    assert 'pilothouse_requests_total{endpoint="smollm2"' in said


def test_the_move_to_postgresql_works_from_top_to_bottom(
    env: dict[str, str], port: int, tmp_path: Path, postgres: PostgresServer
) -> None:
    statements = blocks(POSTGRESQL, "sql")[0].replace("C.UTF-8", "C").strip().splitlines()
    postgres.execute(*statements)
    (tmp_path / "db-password").write_text("choose one\n")
    address = postgres.url("pilothouse").replace("//pilot@", "//pilothouse@")
    script = "\n".join(blocks(POSTGRESQL)).replace(
        "postgresql://pilothouse@db.example/pilothouse", f"'{address}'"
    )
    script = script.replace("up --detach", f"up --detach --port {port}")
    start = f"""
        trap 'pilothouse down >/dev/null 2>&1 || true' EXIT
        cd {tmp_path}
        pilothouse up --detach --port {port}
        pilothouse chat smollm2 "before the move" --max-tokens 4
    """
    checks = """
        pilothouse chat smollm2 "after the move" --max-tokens 4
        sleep 3
        pilothouse get records
    """
    path = f"{Path(sys.executable).parent}:{env['PATH']}"

    said = run(start + script + checks, {**env, "PATH": path})

    assert "all compare equal" in said
    assert f"store {address.partition('?')[0]}" in said
    assert postgres.execute("SELECT count(*) FROM records WHERE code = 'ok'", database="pilothouse") == [(2,)]
    assert (tmp_path / "with-records.tar").exists()


def test_the_restart_without_downtime_works_as_its_page_says(env: dict[str, str], port: int) -> None:
    (script,) = blocks(RESTART)
    ending = "trap 'pilothouse down >/dev/null 2>&1 || true' EXIT\n"

    path = 'export PATH="$PWD/.venv/bin:$PATH"\n'
    said = run(path + ending + script.replace("8423", str(port)), env)

    assert f"restarted: http://127.0.0.1:{port}" in said
    assert "stopped: " in said
