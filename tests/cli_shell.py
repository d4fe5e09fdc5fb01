"""Runs command lines against a server of a test."""

import asyncio
import json

import pytest

from admin_house import AdminHouse
from pilothouse.cli.main import main


class Shell:
    """Runs command lines as an operator does, with address and key in the environment; in a thread."""

    def __init__(self, house: AdminHouse, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.house, self.url, self._capsys = house, url, capsys

    async def run(self, *arguments: str, status: int = 0) -> str:
        """What it printed; its errors when it was to fail."""
        ended = await asyncio.to_thread(self._run, arguments)
        printed = self._capsys.readouterr()
        assert ended == status, printed.err
        return printed.err if status else printed.out

    async def json(self, *arguments: str) -> dict:
        return json.loads((await self.run(*arguments, "--json")).splitlines()[-1])

    def _run(self, arguments: tuple[str, ...]) -> int:
        try:
            main(arguments)
        except SystemExit as ended:
            return int(ended.code or 0)
        raise AssertionError("main returned")
