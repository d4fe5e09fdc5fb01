"""
llama.cpp as we set it up: what crosses slots, what is reachable, how it lives and dies.

All of this holds for the pinned xllamacpp, and a new version has to pass it again.
"""

import asyncio
import http.client
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from engine_home import Home, connected, launch_of, ready
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.model import Artifact
from pilothouse.domain.status import Replica
from pilothouse.kit import processes
from pilothouse.kit.processes import Identity
from pilothouse.ports.engine import Placement
from pilothouse.testing.conformance_engine import answer, ask, running, text_of, usage_of
from pilothouse.testing.conformance_target import seen_as

pytestmark = pytest.mark.engine

LONG = "One, two, three, four, five, six, seven, eight, nine,"
Note = Callable[[str, object], None]


def paragraph(topic: str) -> str:
    return f"This is about {topic}. " + "The night was long and the sea was grey. " * 3


def raw(replica: Replica, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """One request to the engine itself, with nothing of ours in between."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(replica.address.removeprefix("unix:"))
        talk = http.client.HTTPConnection("engine")
        talk.sock = link
        data = None if body is None else json.dumps(body)
        talk.request(method, path, body=data, headers={"content-type": "application/json"})
        response = talk.getresponse()
        return response.status, response.read()


def cached(data: bytes) -> int:
    return int(json.loads(data)["usage"]["prompt_tokens_details"]["cached_tokens"])


def identity_of(replica: Replica) -> Identity:
    found = processes.identify(replica.pid)
    assert found is not None
    return found


class TestTenants:
    """No prompt of one tenant makes another's faster: that would tell what was asked."""

    async def test_a_prompt_is_reused_in_its_own_slot_only_and_only_when_asked(
        self, smollm2_replica: tuple[Home, Replica]
    ) -> None:
        engine = connected(smollm2_replica[1])
        request = ask(paragraph("tenant A"), max_tokens=2)

        async def cached_at(slot: int, reuse_prefix: bool) -> int:
            return usage_of(await answer(engine, request, placement=Placement(slot, reuse_prefix))).cached

        async with aclosing(engine):
            assert await cached_at(0, True) == 0
            assert await cached_at(1, True) == 0
            assert await cached_at(0, True) > 20
            assert await cached_at(0, False) == 0
            assert await cached_at(1, False) == 0

    async def test_a_request_without_a_slot_reuses_nothing(
        self, smollm2_replica: tuple[Home, Replica]
    ) -> None:
        replica = smollm2_replica[1]
        body = {"prompt": paragraph("tenant B"), "max_tokens": 1}

        seen = [cached(raw(replica, "POST", "/v1/completions", body)[1]) for _ in range(3)]

        assert seen == [0, 0, 0]

    async def test_choices_that_the_engine_spreads_over_slots_leave_nothing_behind(
        self, smollm2_replica: tuple[Home, Replica]
    ) -> None:
        replica = smollm2_replica[1]
        body = {"prompt": paragraph("tenant C"), "max_tokens": 2, "id_slot": 0, "n": 2}
        raw(replica, "POST", "/v1/completions", body)

        other = {"prompt": paragraph("tenant C"), "max_tokens": 1, "id_slot": 1, "cache_prompt": True}

        assert cached(raw(replica, "POST", "/v1/completions", other)[1]) == 0

    async def test_neither_log_nor_slots_hold_a_prompt(self, smollm2_replica: tuple[Home, Replica]) -> None:
        home, replica = smollm2_replica
        engine = connected(replica)
        secret = "xylophone-4711"

        async with aclosing(engine):
            await answer(engine, ask(f"The password is {secret}. Repeat it: ", max_tokens=8))
            with pytest.raises(PilothouseError):
                await answer(engine, ask(secret * 4000))

        logged = "\n".join(await home.target().logs(replica.name, lines=10_000))
        slots = raw(replica, "GET", "/slots")[1].decode()
        metrics = raw(replica, "GET", "/metrics")[1].decode()
        assert all("xylophone" not in text for text in (logged, slots, metrics))
        assert "exceeds the available context size" in logged  # it is the right log

    async def test_a_long_prompt_does_not_stall_another_stream(
        self, smollm2_replica: tuple[Home, Replica], record_property: Note
    ) -> None:
        engine = connected(smollm2_replica[1])
        gaps: list[float] = []

        async with aclosing(engine):
            stream = engine.stream(ask(LONG, max_tokens=40), Placement(0), deadline_s=60)
            await anext(stream)
            began = time.monotonic()
            reading = asyncio.create_task(
                answer(engine, ask("sea " * 380, max_tokens=1), placement=Placement(1))
            )
            last = time.monotonic()
            async for _ in stream:
                now = time.monotonic()
                gaps.append(now - last)
                last = now
            await reading
            read_s = time.monotonic() - began

        record_property(
            "note", f"llama.cpp: longest pause of a stream while 380 tokens are read: {max(gaps):.2f} s"
        )
        assert max(gaps) < max(1.0, read_s / 3)


class TestReach:
    """What is not needed is off, and the socket is closed to others."""

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/props"),
            ("POST", "/slots/0?action=save"),
            ("POST", "/slots/0?action=restore"),
            ("POST", "/slots/0?action=erase"),
            ("POST", "/models/load"),
            ("POST", "/models/unload"),
            ("GET", "/tools"),
            ("POST", "/tools"),
            ("GET", "/mcp"),
            ("POST", "/mcp"),
            ("GET", "/cors-proxy?url=http://127.0.0.1:1"),
            ("POST", "/cors-proxy"),
            ("GET", "/"),
            ("GET", "/index.html"),
            ("POST", "/v1/embeddings"),
            ("POST", "/v1/rerank"),
            ("POST", "/v1/audio/transcriptions"),
            ("POST", "/infill"),
        ],
    )
    def test_it_is_off(self, smollm2_replica: tuple[Home, Replica], method: str, path: str) -> None:
        body = {"filename": "x", "model": "m", "input": "x", "prompt": "x", "query": "x", "documents": ["x"]}

        status, _ = raw(smollm2_replica[1], method, path, body if method == "POST" else None)

        assert status in (403, 404, 501)

    def test_no_adapter_can_be_loaded_later(self, smollm2_replica: tuple[Home, Replica]) -> None:
        replica = smollm2_replica[1]

        raw(replica, "POST", "/lora-adapters", [{"id": 0, "scale": 1.0}])

        assert json.loads(raw(replica, "GET", "/lora-adapters")[1]) == []

    def test_the_model_is_known_by_its_name_and_not_by_its_path(
        self, smollm2_replica: tuple[Home, Replica], smollm2: Artifact
    ) -> None:
        _, data = raw(smollm2_replica[1], "POST", "/v1/completions", {"prompt": "x", "max_tokens": 1})

        assert json.loads(data)["model"] == smollm2.name
        assert smollm2.path.encode() not in data

    def test_only_its_owner_reaches_the_socket(self, smollm2_replica: tuple[Home, Replica]) -> None:
        path = Path(smollm2_replica[1].address.removeprefix("unix:"))

        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_it_listens_nowhere_else(self, smollm2_replica: tuple[Home, Replica]) -> None:
        process = psutil.Process(smollm2_replica[1].pid)

        assert process.net_connections("inet") == []

    def test_it_inherits_nothing(
        self, smollm2_replica: tuple[Home, Replica], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = psutil.Process(smollm2_replica[1].pid)

        assert set(process.environ()) <= {"LANG", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
        assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid


class TestLife:
    async def test_it_takes_what_was_predicted(
        self, home: Home, smollm2: Artifact, record_property: Note
    ) -> None:
        launch = launch_of(smollm2, slots=3, context_tokens=1536)
        replica = await home.start(launch)
        start_s = await ready(home, replica)
        engine = connected(replica)
        async with aclosing(engine):
            await answer(engine, ask("sea " * 100, max_tokens=4))

        taken = psutil.Process(replica.pid).memory_info().rss
        record_property(
            "note",
            f"llama.cpp: first token {start_s:.2f} s after the start; "
            f"memory {taken / 1e6:.0f} MB, predicted {launch.memory_bytes / 1e6:.0f} MB",
        )
        assert 0.98 <= launch.memory_bytes / taken <= 1.15

    async def test_a_replica_goes_on_over_a_restart_of_pilothouse(
        self, smollm2_replica: tuple[Home, Replica]
    ) -> None:
        home, replica = smollm2_replica

        (seen,) = await home.target().observe()

        assert seen == replica
        engine = connected(seen)
        async with aclosing(engine):
            assert text_of(await answer(engine, ask()))

    async def test_term_ends_it_at_once_when_idle(
        self, home: Home, smollm2: Artifact, record_property: Note
    ) -> None:
        replica = await home.start(launch_of(smollm2))
        await ready(home, replica)
        identity = identity_of(replica)

        began = time.monotonic()
        await home.target().stop(replica.name, grace_s=10.0)
        took_s = time.monotonic() - began

        record_property("note", f"llama.cpp: stopped {took_s:.2f} s after TERM when idle")
        assert took_s < 2.0
        assert not processes.is_alive(identity)
        assert not Path(replica.address.removeprefix("unix:")).exists()

    async def test_term_ends_it_while_it_streams_and_the_stream_is_an_error(
        self, home: Home, smollm2: Artifact, record_property: Note
    ) -> None:
        replica = await home.start(launch_of(smollm2))
        await ready(home, replica)
        engine = connected(replica)

        async with aclosing(engine):
            stream = engine.stream(ask(LONG, max_tokens=400), Placement(), deadline_s=60)
            await anext(stream)
            began = time.monotonic()
            await home.target().stop(replica.name, grace_s=10.0)
            took_s = time.monotonic() - began
            with pytest.raises(PilothouseError):
                async for _ in stream:
                    pass

        record_property("note", f"llama.cpp: stopped {took_s:.2f} s after TERM while it streamed")
        assert took_s < 2.0

    async def test_term_ends_it_while_it_loads(self, home: Home, smollm2: Artifact) -> None:
        replica = await home.start(launch_of(smollm2))

        began = time.monotonic()
        await home.target().stop(replica.name, grace_s=10.0)

        assert time.monotonic() - began < 2.0
        assert processes.identify(replica.pid) is None

    async def test_a_killed_engine_is_seen_and_its_streams_are_errors(
        self, home: Home, smollm2: Artifact
    ) -> None:
        target = home.target()
        replica = await home.start(launch_of(smollm2))
        await ready(home, replica)
        engine = connected(replica)

        async with aclosing(engine):
            stream = engine.stream(ask(LONG, max_tokens=400), Placement(), deadline_s=60)
            await anext(stream)
            os.kill(replica.pid, signal.SIGKILL)
            with pytest.raises(PilothouseError):
                async for _ in stream:
                    pass
            assert not (await engine.health(deadline_s=2.0)).ok

        failed = await seen_as(target, replica.name, "failed")
        assert "SIGKILL" in failed.reason

    async def test_an_engine_that_hangs_is_not_healthy_and_is_killed(
        self, home: Home, smollm2: Artifact
    ) -> None:
        replica = await home.start(launch_of(smollm2))
        await ready(home, replica)
        engine = connected(replica)
        os.kill(replica.pid, signal.SIGSTOP)
        async with asyncio.timeout(10):  # its threads run on until one of them takes the signal
            while psutil.Process(replica.pid).status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0.01)

        async with aclosing(engine):
            health = await engine.health(deadline_s=0.5)
        await home.target().stop(replica.name, grace_s=0.2)

        assert not health.ok
        assert processes.identify(replica.pid) is None

    @pytest.mark.parametrize("fault", ["cut", "garbage", "absent"])
    async def test_a_model_that_cannot_be_loaded_is_told_with_a_reason(
        self, home: Home, smollm2: Artifact, tmp_path: Path, fault: str
    ) -> None:
        broken = tmp_path / "broken.gguf"
        with Path(smollm2.path).open("rb") as whole:
            data = {"cut": whole.read(20_000_000), "garbage": b"GGUF" + b"\xff" * 4096, "absent": b""}[fault]
        if fault != "absent":
            broken.write_bytes(data)
        wanted = launch_of(msgspec.structs.replace(smollm2, path=str(broken)))
        replica = await home.start(wanted)

        failed = await seen_as(home.target(), replica.name, "failed")

        assert "status 3" in failed.reason
        assert "the engine cannot start, is the model file whole?" in failed.reason
        assert any("broken.gguf" in line for line in await home.target().logs(replica.name, lines=50))

    async def test_a_freed_slot_is_counted(
        self, smollm2_replica: tuple[Home, Replica], record_property: Note
    ) -> None:
        engine = connected(smollm2_replica[1])
        took: list[float] = []

        async with aclosing(engine):
            for _ in range(5):
                stream = engine.stream(ask(LONG, max_tokens=400), Placement(), deadline_s=60)
                await anext(stream)
                assert ((await engine.load()).kv_used or 0.0) > 0
                await stream.aclose()
                took.append(await running(engine, lambda count: count == 0, timeout_s=1.0))

        record_property("note", f"llama.cpp: a slot is free {max(took):.2f} s after a hang-up (worst of 5)")
