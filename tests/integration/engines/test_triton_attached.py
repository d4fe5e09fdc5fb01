"""A real Triton at a port that somebody else started, with a key; asked as each kind of repository."""

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines._triton_http import TritonEngine
from pilothouse.adapters.engines._triton_repository import MODEL, python_repository
from pilothouse.adapters.engines.triton import TritonDriver, _packages, _python_server
from pilothouse.domain.errors import EngineUnavailable, UpstreamError
from pilothouse.kit.secret import Secret
from pilothouse.testing.conformance_engine import answer, ask, ends_of, running, text_of, usage_of

FOUND = TritonDriver().installed()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]
SCRIPT = Path(__file__).parents[2] / "fixtures" / "make_tiny_llama.py"
KEY = "k3y"
CLOSED = "health,metadata,inference,model-config,model-repository,statistics"
READY_S = 300.0


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("triton")
    subprocess.run([python_of("triton"), "-I", str(SCRIPT), folder / "tiny"], check=True, timeout=300)
    files = python_repository(
        model_path=str(folder / "tiny"),
        packages=str(_packages()),
        threads=1,
        context_tokens=1024,
        slots=2,
        max_queue=4,
    )
    for path, text in files.items():
        (folder / "models" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "models" / path).write_text(text)
    wheel = _python_server()
    for link, target in wheel["links"].items():
        (folder / link).parent.mkdir(parents=True, exist_ok=True)
        (folder / link).symlink_to(target)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number = one.getsockname()[1]
    argv = [
        *(word for word in wheel["argv"] if "http" not in word and "{" not in word),
        "--http-address=127.0.0.1",
        f"--http-port={number}",
        f"--http-restricted-api={CLOSED}:triton-key={KEY}",
    ]
    env = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": wheel["libraries"]}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            yield number
        finally:
            child.terminate()
            child.wait(timeout=60)


def connected(port: int, *, key: str = KEY, model: str = MODEL, **options: Any) -> TritonEngine:
    return TritonDriver().connect(
        f"http://127.0.0.1:{port}",
        model=model,
        context_tokens=1024,
        secret=Secret(key),
        allow_private=True,
        options={"secret_header": "triton-key", "base_url": f"http://127.0.0.1:{port}", **options},
    )


@pytest.fixture
async def ours(port: int) -> AsyncIterator[TritonEngine]:
    engine = connected(port)
    deadline = time.monotonic() + READY_S
    while not (health := await engine.health(deadline_s=30.0)).ok:
        assert time.monotonic() < deadline, health.reason
        await asyncio.sleep(0.2)
    yield engine
    await engine.aclose()


async def test_our_own_repository_answers_wherever_it_runs(ours: TritonEngine) -> None:
    chunks = await answer(ours, ask(max_tokens=3))

    assert ends_of(chunks) == {0: "length"}
    assert usage_of(chunks).output == 3
    await running(ours, lambda count: count == 0, timeout_s=5.0)


async def test_the_words_of_the_vllm_backend_are_understood(port: int, ours: TritonEngine) -> None:
    """By Triton, on a repository of the same names: vLLM itself is not here."""
    engine = connected(port, backend="vllm")

    chunks = await answer(engine, ask(max_tokens=3))
    await engine.load()
    await engine.aclose()

    assert text_of(chunks) == text_of(await answer(ours, ask(max_tokens=3)))
    assert usage_of(chunks).output == 3


async def test_a_repository_of_text_alone_is_read_to_its_end(port: int, ours: TritonEngine) -> None:
    engine = connected(port, backend="text")

    chunks = await answer(engine, ask("a" * 1000, max_tokens=100))
    await engine.aclose()

    assert text_of(chunks)
    assert ends_of(chunks)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"key": "wrong"}, "refused the secret"), ({"model": "other"}, "knows no such model")],
)
async def test_what_it_does_not_let_in_is_told(
    port: int, ours: TritonEngine, changes: dict[str, str], reason: str
) -> None:
    engine = connected(port, **changes)

    with pytest.raises(UpstreamError, match=reason):
        await answer(engine, ask())
    health = await engine.health(deadline_s=10.0)
    await engine.aclose()

    assert not health.ok
    assert reason in health.reason


async def test_a_dead_model_that_triton_calls_ready_is_suspected(port: int, ours: TritonEngine) -> None:
    """The last of this file: nobody but its owner may load it anew."""
    engine = connected(port, backend="vllm")
    await answer(engine, ask(max_tokens=2))
    await engine.load()
    (stub,) = [
        one
        for one in psutil.process_iter(["cmdline"])
        if f"port={port}" in " ".join(one.parent().cmdline() if one.parent() else [])
        and "triton_python_backend_stub" in " ".join(one.info["cmdline"] or [])
    ]

    stub.kill()
    async with asyncio.timeout(30):
        while stub.is_running() and stub.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.05)
    with pytest.raises(EngineUnavailable, match="has ended"):
        await answer(engine, ask(max_tokens=2))

    with pytest.raises(EngineUnavailable, match="has failed"):
        await engine.load()
    with pytest.raises(EngineUnavailable):
        await engine.load()
    await engine.aclose()
