"""The engine suite on vLLM's own server, with a small model of random weights, and its life."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
from msgspec import Raw
from msgspec.structs import replace

from engine_home import Home
from pilothouse.adapters.engines._holes import Hole
from pilothouse.adapters.engines._vllm_http import VllmEngine
from pilothouse.adapters.engines.vllm import DIALECT, VERSION, VllmDriver
from pilothouse.adapters.targets._shared_memory import prefix
from pilothouse.control.models import Artifact
from pilothouse.domain.errors import InvalidRequest, PilothouseError, UpstreamError
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Replica
from pilothouse.kit import processes
from pilothouse.kit.folders import make_private
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import EngineInfo, Launch, Machine
from pilothouse.testing.conformance_engine import (
    ANYWHERE,
    EngineConformance,
    WholeConformance,
    answer,
    ask,
    ends_of,
    text_of,
    usage_of,
)
from pilothouse.testing.conformance_target import seen_as
from tiny_llama import CONTEXT_TOKENS, add_adapter, make_tiny_llama

FOUND = VllmDriver().installed()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]
READY_S = 400.0
TEMPLATE = "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"), engine="vllm")


def launch_of(artifact: Artifact, **options: object) -> Launch:
    machine = Machine(cpus=2, memory_available_bytes=16 * 10**9)
    spec = DeploymentSpec(model="m", engine="vllm", engine_options=options)
    return VllmDriver().launch("", spec, artifact, machine)


def connected(replica: Replica, *, key: str = "") -> VllmEngine:
    token = Secret(key or Path(replica.token_file).read_text())
    return VllmDriver().connect(
        replica.address,
        model="m:1",
        context_tokens=replica.context_tokens,
        secret=token,
        options=replica.options,
    )


async def ready(home: Home, replica: Replica) -> None:
    engine = connected(replica)
    try:
        async with asyncio.timeout(READY_S):
            while not (await engine.health(deadline_s=60.0)).ok:
                (seen,) = await home.target().observe()
                assert seen.state == "starting", seen.reason
                await asyncio.sleep(0.2)
    finally:
        await engine.aclose()


@pytest.fixture(scope="session")
def running_replica(
    tiny: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, Replica]]:
    home = Home(make_private(tmp_path_factory.mktemp("v")))

    async def begin() -> Replica:
        replica = await home.start(
            launch_of(
                tiny,
                slots=4,
                dtype="float32",
                max_batched_tokens=64,  # a long prompt is read in many steps
                chat_template=TEMPLATE,
                speculative_tokens=2,
                tool_parser="hermes",
            )
        )
        await ready(home, replica)
        return replica

    try:
        yield home, asyncio.run(begin())
    finally:
        asyncio.run(home.stop_all())


class Lab:
    cannot = VllmDriver.cannot
    long_words = 240
    """Each is four tokens of this model."""

    def __init__(self, replica: Replica) -> None:
        self.context_tokens = replica.context_tokens
        self.engine = connected(replica)

    def dead(self) -> VllmEngine:
        return VllmDriver().connect("unix:/nobody.sock", model="m", context_tokens=CONTEXT_TOKENS)


class TestVllm(EngineConformance, WholeConformance):
    @pytest.fixture
    async def lab(self, running_replica: tuple[Home, Replica]) -> AsyncIterator[Lab]:
        lab = Lab(running_replica[1])
        yield lab
        await lab.engine.aclose()

    async def test_several_choices_come_in_one_answer(self, lab: Lab) -> None:
        request = ask(choices=2, temperature=1.0, stream=False)

        whole = await lab.engine.complete(request, ANYWHERE, deadline_s=60.0)

        assert sorted(ends_of([whole])) == [0, 1]

    async def test_several_answers_that_would_be_one_are_refused_by_name(self, lab: Lab) -> None:
        with pytest.raises(InvalidRequest, match="n: several answers at temperature 0"):
            await answer(lab.engine, ask(choices=2))

    async def test_a_prompt_may_be_the_models_own_tokens(self, lab: Lab) -> None:
        ids = await tokens_of(lab.engine, "abcd")

        said = await answer(lab.engine, ask(ids))

        assert text_of(said) == text_of(await answer(lab.engine, ask("abcd")))
        assert usage_of(said).input == len(ids)

    @pytest.mark.parametrize(
        "shaping", [{"logit_bias": Raw(b'{"65":100}')}, {"min_p": 0.5, "temperature": 1.0}]
    )
    async def test_what_it_cannot_do_while_it_guesses_ahead_is_refused_by_name(
        self, lab: Lab, shaping: dict[str, object]
    ) -> None:
        with pytest.raises(InvalidRequest, match="neither logit_bias nor min_p"):
            await answer(lab.engine, ask(**shaping))

    async def test_the_template_of_the_spec_is_used(self, lab: Lab) -> None:
        messages = [{"role": "user", "content": "abc"}]

        said = await answer(lab.engine, ask(messages, kind="chat"))
        plain = await answer(lab.engine, ask("<abc>"))

        assert text_of(said) == text_of(plain)
        assert usage_of(said).input == 5

    async def test_it_counts_the_tokens_of_a_prompt_as_it_reads_them(self, lab: Lab) -> None:
        messages = [{"role": "user", "content": "abc"}]

        assert await lab.engine.count(ask("abcd"), deadline_s=10.0) == 4
        assert await lab.engine.count(ask(messages, kind="chat"), deadline_s=10.0) == 5

    async def test_a_form_is_kept_to(self, lab: Lab) -> None:
        form = Raw(b'{"type":"json_schema","json_schema":{"name":"x","schema":{"enum":["north","south"]}}}')

        said = await answer(lab.engine, ask("Where?", kind="completion", max_tokens=12, response_format=form))

        assert text_of(said).strip() in ('"north"', '"south"')

    async def test_nobody_is_answered_without_the_token(self, running_replica: tuple[Home, Replica]) -> None:
        engine = connected(running_replica[1], key="another")

        with pytest.raises(UpstreamError, match="refused the secret"):
            await answer(engine, ask())
        await engine.aclose()

    async def test_it_inherits_nothing_and_listens_on_sockets_and_loopback_alone(
        self, running_replica: tuple[Home, Replica]
    ) -> None:
        leader = psutil.Process(running_replica[1].pid)
        family = [leader, *leader.children(recursive=True)]

        heard = [
            one.laddr.ip
            for process in family
            for one in process.net_connections(kind="inet")
            if one.status == psutil.CONN_LISTEN
        ]
        assert set(heard) <= {"127.0.0.1"}
        assert not {"PILOTHOUSE_HOME", "PYTHONPATH", "USER"} & leader.environ().keys()
        token = Path(running_replica[1].token_file).read_text()
        assert not any(token in word for process in family for word in process.cmdline())

    async def test_it_is_attached_to_where_it_runs(self, running_replica: tuple[Home, Replica]) -> None:
        replica = running_replica[1]
        key = Secret(Path(replica.token_file).read_text())
        async with _on_a_port(replica.address.removeprefix("unix:")) as port:
            attached = VllmDriver().connect(
                f"http://127.0.0.1:{port}/v1", model="model", context_tokens=0, secret=key, allow_private=True
            )

            assert (await attached.health(deadline_s=30.0)).ok
            assert text_of(await answer(attached, ask()))
            assert (await attached.load()).kv_used is not None
            await attached.aclose()

    async def test_a_version_with_known_holes_is_not_healthy(
        self, running_replica: tuple[Home, Replica]
    ) -> None:
        replica = running_replica[1]
        hole = Hole("CVE-0", "0", "99.0", "anybody in")
        engine = VllmEngine(
            EngineInfo(name="vllm"),
            replica.address,
            dialect=replace(DIALECT, holes=(hole,)),
            model="model",
        )

        health = await engine.health(deadline_s=30.0)
        await engine.aclose()

        assert not health.ok
        assert f"vllm {VERSION} has known holes (CVE-0 lets anybody in)" in health.reason


@asynccontextmanager
async def _on_a_port(path: str) -> AsyncIterator[int]:
    """The socket at a port of loopback, as servers of others are."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(path)
        await asyncio.gather(carry(reader, back), carry(there, writer), return_exceptions=True)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def tokens_of(engine: VllmEngine, text: str) -> list[int]:
    """As the engine itself reads it."""
    body = msgspec.json.encode({"model": "model", "prompt": text})
    found: list[int] = (await engine._ask_aside("/tokenize", body, _Tokens, deadline_s=10.0)).tokens
    return found


class _Tokens(msgspec.Struct):
    tokens: list[int]


async def test_an_adapter_of_the_models_folder_answers(
    tiny: Artifact, running_replica: tuple[Home, Replica], tmp_path: Path
) -> None:
    folder = tmp_path / "with_adapter"
    shutil.copytree(tiny.path, folder)
    add_adapter(folder, "other")
    home = Home(tmp_path / "home")
    try:
        adapted = launch_of(replace(tiny, path=str(folder)), slots=2, dtype="float32", adapter="other")
        replica = await home.start(adapted)
        await ready(home, replica)
        plain, other = connected(running_replica[1]), connected(replica)

        said = [text_of(await answer(engine, ask(max_tokens=16))) for engine in (plain, other)]

        assert said[0] != said[1]
        (wanted,) = await tokens_of(other, "z")
        biased = await answer(other, ask(max_tokens=3, logit_bias=Raw(b'{"%d":100}' % wanted)))
        assert text_of(biased) == "zzz"
        await plain.aclose()
        await other.aclose()
    finally:
        await home.stop_all()


async def test_two_processes_that_share_a_model_say_what_one_says(
    tiny: Artifact, running_replica: tuple[Home, Replica], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    try:
        replica = await home.start(launch_of(tiny, slots=2, dtype="float32", tensor_parallel=2))
        await ready(home, replica)
        alone, shared = connected(running_replica[1]), connected(replica)

        said = [text_of(await answer(engine, ask(max_tokens=16))) for engine in (alone, shared)]

        assert said[0] == said[1]
        names = [child.name() for child in psutil.Process(replica.pid).children(recursive=True)]
        assert sum("Worker_TP" in name for name in names) == 2
        await alone.aclose()
        await shared.aclose()
    finally:
        await home.stop_all()


async def test_a_crash_is_told_and_a_new_one_takes_its_place(tiny: Artifact, tmp_path: Path) -> None:
    home = Home(tmp_path)
    replica = await home.start(launch_of(tiny))
    try:
        await ready(home, replica)
        engine = connected(replica)
        stream = engine.stream(ask(max_tokens=900), ANYWHERE, deadline_s=60)
        await anext(stream)
        children = psutil.Process(replica.pid).children(recursive=True)

        # Its server lives on without the process that computes, for a while: all of it must end.
        os.kill(max(children, key=lambda child: child.memory_info().rss).pid, signal.SIGKILL)

        with pytest.raises(PilothouseError):
            async for _ in stream:
                pass
        await engine.aclose()
        await seen_as(home.target(), replica.name, "failed")
        again = await home.start(launch_of(tiny))
        await ready(home, again)
    finally:
        await home.stop_all()
    assert not processes.find(["--replica", replica.name, "--home-id", home.target()._book.home_id])
    assert not any(child.is_running() for child in children)


async def test_one_that_was_killed_whole_leaves_no_shared_memory(tiny: Artifact, tmp_path: Path) -> None:
    home = Home(tmp_path)
    replica = await home.start(launch_of(tiny))
    pieces = prefix(home.target()._book.home_id, replica.name)
    try:
        await ready(home, replica)
        assert list(Path("/dev/shm").glob(f"{pieces}*"))

        os.killpg(replica.pid, signal.SIGKILL)
        await seen_as(home.target(), replica.name, "failed")
        await home.target().stop(replica.name, grace_s=10.0)

        assert not list(Path("/dev/shm").glob(f"{pieces}*"))
    finally:
        await home.stop_all()
