"""The load test over real sockets, against a server of a few lines."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pilothouse.cli.client import Server
from pilothouse.cli.load import Answer
from pilothouse.cli.load_http import HttpTransport, Question, prompt, resolve
from pilothouse.kit.http1.sweep import Sweeper

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
DELTA = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":7}}\n\n'


@asynccontextmanager
async def answering(script: Script) -> AsyncIterator[str]:
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(writer)
            await writer.drain()
        except ConnectionError:  # whoever asked has gone
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)


async def ask(url: str, **question: object) -> Answer:
    server = Server(url, "ph_a_b_c")
    sweeper = Sweeper()
    sweeper.start()
    address = resolve(server.host, server.port, tls=False)
    asked = Question(**{"endpoint": "smollm2", "stream": True, "timeout_s": 5.0, **question})  # type: ignore[arg-type]
    transport = HttpTransport(server, asked, address=address, sweeper=sweeper)
    try:
        return await transport.ask(1)
    finally:
        transport.close()
        sweeper.stop()


def body(*parts: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)

    return script


async def test_a_stream_gives_first_token_gaps_and_the_servers_token_count() -> None:
    async with answering(body(HEAD, DELTA, DELTA, USAGE, b"data: [DONE]\n\n")) as url:
        answer = await ask(url)

    assert (answer.code, answer.tokens) == ("ok", 7)
    assert answer.first_s is not None
    assert len(answer.gaps_s) == 1
    assert 0.01 < answer.gaps_s[0] < 1.0


async def test_of_a_prompt_those_tokens_count_that_were_computed() -> None:
    usage = (
        b'data: {"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":2,'
        b'"prompt_tokens_details":{"cached_tokens":26}}}\n\n'
    )
    async with answering(body(HEAD, DELTA, DELTA, usage, b"data: [DONE]\n\n")) as url:
        answer = await ask(url)

    assert (answer.prompt_tokens, answer.tokens) == (14, 2)


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((HEAD, DELTA), "cut"),
        ((HEAD, DELTA, b'data: {"error":{"code":"upstream_error"}}\n\n'), "upstream_error"),
        ((HEAD, b"data: <html>\n\n"), "nonsense"),
        (
            (b"HTTP/1.1 503 X\r\ncontent-length: 31\r\n\r\n", b'{"error":{"code":"overloaded"}}'),
            "overloaded",
        ),
        ((b"HTTP/1.1 502 X\r\ncontent-length: 2\r\n\r\nno",), "status_502"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",), "cut"),
        ((), "head_failed"),
    ],
)
async def test_every_way_to_fail_has_a_code_of_its_own(parts: tuple[bytes, ...], code: str) -> None:
    async with answering(body(*parts)) as url:
        assert (await ask(url)).code == code


async def test_nobody_there_is_a_code_too() -> None:
    assert (await ask("http://127.0.0.1:1")).code == "connect_failed"


async def test_a_silent_server_is_a_timeout() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.5)

    async with answering(silent) as url:
        assert (await ask(url, timeout_s=0.3)).code == "timeout"


def test_prompts_have_their_size_and_differ_from_the_first_word_on() -> None:
    texts = [prompt(number, 200) for number in range(50)]

    assert {len(text) for text in texts} == {200}
    assert len({text.split()[0] for text in texts}) == 50
    assert prompt(3, 200) == texts[3]


async def run_bench(*arguments: str) -> tuple[int | None, bytes]:
    code = "import sys; from pilothouse.cli.main import main; main(sys.argv[1:])"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        "bench",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return process.returncode, output


async def test_the_command_prints_its_report_as_json() -> None:
    async with answering(body(HEAD, DELTA, USAGE, b"data: [DONE]\n\n")) as url:
        status, output = await run_bench(url, "--rate", "20", "--stream", "--duration", "1", "--json")

    report = json.loads(output)
    assert status == 0
    assert (report["requests"], report["ok"], report["output_tokens"]) == (20, 20, 140)
    assert report["ttft"]["count"] == 20


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["http://192.0.2.1:8420", "--api-key", "x"], 4),
        (["http://127.0.0.1:1", "--api-key", "x"], 3),
        (["--rate", "1", "--concurrency", "1"], 2),
        (["ftp://127.0.0.1", "--api-key", "x"], 2),
    ],
)
async def test_what_cannot_be_tested_is_refused(arguments: list[str], status: int) -> None:
    assert (await run_bench(*arguments))[0] == status
