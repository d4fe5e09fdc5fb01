"""The real admin API over TCP, for command lines."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn

from admin_house import AdminHouse
from cli_shell import Shell


@pytest.fixture
async def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Shell]:
    house = await AdminHouse(tmp_path).furnish()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(house.app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("PILOTHOUSE_HOME", str(tmp_path / "no-server-here"))
    monkeypatch.setenv("PILOTHOUSE_URL", url)
    monkeypatch.setenv("PILOTHOUSE_API_KEY", house.keys["red", "admin"])
    try:
        yield Shell(house, url, capsys)
    finally:
        server.should_exit = True
        await asyncio.wait([serving], timeout=10)
        listener.close()
