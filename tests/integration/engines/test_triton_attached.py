"""A real Triton at ports that somebody else started, with a key; asked as each kind of repository."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines._triton_engine import TritonEngine
from pilothouse.adapters.engines._triton_repository import MODEL, python_repository
from pilothouse.adapters.engines.triton import TritonDriver, _packages, _python_server
from pilothouse.adapters.targets._places import free_ports
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
PROTOCOLS = ("rest", "grpc")
HEADERS = {"rest": "triton-key", "grpc": "triton-grpc-protocol-triton-key"}
Ports = dict[str, int]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
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
    found = dict(zip(PROTOCOLS, free_ports(PROTOCOLS).values(), strict=True))
    argv = [
        *(
            word
            for word in wheel["argv"]
            if not word.startswith(("--http", "--allow-grpc")) and "{" not in word
        ),
        "--http-address=127.0.0.1",
        f"--http-port={found['rest']}",
        f"--http-restricted-api={CLOSED}:triton-key={KEY}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={found['grpc']}",
        f"--grpc-restricted-protocol={CLOSED}:triton-key={KEY}",
    ]
    env = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": wheel["libraries"]}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            yield found
        finally:
            child.terminate()
            child.wait(timeout=60)


def connected(
    ports: Ports, protocol: str, *, key: str = KEY, model: str = MODEL, **options: Any
) -> TritonEngine:
    address = f"http://127.0.0.1:{ports[protocol]}"
    about = {"secret_header": HEADERS[protocol], "base_url": address, "protocol": protocol}
    return TritonDriver().connect(
        address,
        model=model,
        context_tokens=1024,
        secret=Secret(key),
        allow_private=True,
        options={**about, **options},
    )


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def ours(ports: Ports, protocol: str) -> AsyncIterator[TritonEngine]:
    engine = connected(ports, protocol)
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


async def test_the_words_of_the_vllm_backend_are_understood(
    ports: Ports, protocol: str, ours: TritonEngine
) -> None:
    """By Triton, on a repository of the same names: vLLM itself is not here."""
    engine = connected(ports, protocol, backend="vllm")

    chunks = await answer(engine, ask(max_tokens=3))
    await engine.load()
    await engine.aclose()

    assert text_of(chunks) == text_of(await answer(ours, ask(max_tokens=3)))
    assert usage_of(chunks).output == 3


async def test_a_repository_of_text_alone_is_read_to_its_end(
    ports: Ports, protocol: str, ours: TritonEngine
) -> None:
    engine = connected(ports, protocol, backend="text")

    chunks = await answer(engine, ask("a" * 1000, max_tokens=100))
    await engine.aclose()

    assert text_of(chunks)
    assert ends_of(chunks)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"key": "wrong"}, "refused the secret"), ({"model": "other"}, "knows no such model")],
)
async def test_what_it_does_not_let_in_is_told(
    ports: Ports, protocol: str, ours: TritonEngine, changes: dict[str, str], reason: str
) -> None:
    engine = connected(ports, protocol, **changes)

    with pytest.raises(UpstreamError, match=reason):
        await answer(engine, ask())
    health = await engine.health(deadline_s=10.0)
    await engine.aclose()

    assert not health.ok
    assert reason in health.reason


async def test_a_dead_model_that_triton_calls_ready_is_suspected(ports: Ports) -> None:
    """The last of this file: nobody but its owner may load it anew."""
    engines = [connected(ports, protocol, backend="vllm") for protocol in PROTOCOLS]
    for engine in engines:
        await answer(engine, ask(max_tokens=2))
    for engine in engines:
        await engine.load()
    (stub,) = [
        one
        for one in psutil.process_iter(["cmdline"])
        if f"port={ports['rest']}" in " ".join(one.parent().cmdline() if one.parent() else [])
        and "triton_python_backend_stub" in " ".join(one.info["cmdline"] or [])
    ]

    stub.kill()
    async with asyncio.timeout(30):
        while stub.is_running() and stub.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.05)

    for engine in engines:
        with pytest.raises(EngineUnavailable, match="has ended"):
            await answer(engine, ask(max_tokens=2))
        with pytest.raises(EngineUnavailable, match="has failed"):
            await engine.load()
        with pytest.raises(EngineUnavailable):
            await engine.load()
        await engine.aclose()
