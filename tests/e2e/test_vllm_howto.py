"""The page about vLLM does what it says: its first spec and its commands, with vLLM's real server."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from pilothouse.adapters.engines.vllm import VllmDriver
from program_rig import program
from program_shell import Shell
from tiny_llama import make_tiny_llama

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "serve-with-vllm.md").read_text()
FOUND = VllmDriver().installed()
READY_S = 600.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_it_serves_by_vllm_as_it_is_written(tmp_path: Path) -> None:
    model = tmp_path / "models" / "chat"
    make_tiny_llama(model, engine="vllm")
    spec = yaml.safe_load(blocks("yaml")[0].replace("/models/chat", str(model)))
    install, serve = blocks("sh")
    applied, *commands = [shlex.split(line) for line in serve.splitlines()]

    with program(tmp_path / "home", yaml.safe_dump(spec), ready_s=READY_S) as server:
        shell = Shell(server)
        said = {command[1]: shell.run(*command[1:]) for command in commands}
        engines = {one["name"]: one for one in shell.json("engine", "list")["items"]}

    assert install.split() == ["pilothouse", "engine", "install", "vllm"]
    assert applied == ["pilothouse", "apply", "-f", "pilothouse.yaml", "--wait"]
    assert said["chat"].strip()
    assert re.search(r"^chat\b.*ready", said["status"], re.MULTILINE)
    assert engines["vllm"]["installed"]


def test_the_spec_of_an_attached_server_is_one_that_is_taken() -> None:
    (attached,) = (yaml.safe_load(block) for block in blocks("yaml")[1:])

    options = attached["deployments"]["chat"]["engine_options"]

    assert not set(options) - set(VllmDriver.options.__struct_fields__)
