"""Command lines against the real program of a test, as an operator gives them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from program_rig import Program


class Shell:
    def __init__(self, server: Program) -> None:
        self._server = server

    def run(self, *arguments: str, status: int = 0) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
        keys = {"PILOTHOUSE_URL": self._server.url, "PILOTHOUSE_API_KEY": self._server.admin_key}
        argv = [str(Path(sys.executable).with_name("pilothouse")), *arguments]
        done = subprocess.run(
            argv, env={**kept, **keys}, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    def json(self, *arguments: str) -> dict:
        return json.loads(self.run(*arguments, "--json").splitlines()[-1])

    def versions(self) -> set[str]:
        return {
            one["model_version"] for one in self.json("get", "replicas")["items"] if one["state"] == "ready"
        }
