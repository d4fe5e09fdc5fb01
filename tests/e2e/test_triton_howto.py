"""The page about Triton does what it says, by each protocol, with the real server and a random model."""

import json
import re
import time
from pathlib import Path

import pytest

from page_rig import blocks, run
from pilothouse.adapters.engines.triton import TritonDriver, TritonOptions
from pilothouse.config import read_spec
from pilothouse.domain.options import read_options
from program_rig import program
from tiny_llama import make_tiny_llama

FOUND = TritonDriver().installed()
needs_it = pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}")
PAGE = "serve-with-triton.md"
READY_S = 300.0
HEAL_S = 120.0


@pytest.mark.slow
@needs_it
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_page_works_from_apply_to_a_model_that_was_killed(tmp_path: Path, protocol: str) -> None:
    folder = tmp_path / "small"
    make_tiny_llama(folder, engine="triton")
    spec = blocks(PAGE, "yaml")[0].replace("/models/small", str(folder))
    spec = spec.replace("{slots:", f"{{protocol: {protocol}, slots:")
    (tmp_path / "triton.yaml").write_text(spec)
    install, served, kill = blocks(PAGE, "sh")

    with program(tmp_path / "home", spec, ready_s=READY_S) as server:
        address = {"PILOTHOUSE_URL": server.url, "PILOTHOUSE_API_KEY": server.admin_key, "COLUMNS": "200"}
        said = run(served, tmp_path, **address)
        run(kill, tmp_path, **address)
        ask = "curl" + served.split("curl")[1]
        ends = time.monotonic() + HEAL_S
        while "choices" not in (again := json.loads(run(ask, tmp_path, **address))):
            assert again["error"]["code"], again
            assert time.monotonic() < ends, again
            time.sleep(0.5)

    assert install == "pilothouse engine install triton\n"
    assert re.search(r"^small\b.*ready", said, re.MULTILINE)
    answer = json.loads(said.splitlines()[-1])
    assert answer["usage"]["completion_tokens"] == 8
    assert again["usage"] == answer["usage"]


def test_the_spec_for_one_that_runs_already_is_one() -> None:
    spec = read_spec(blocks(PAGE, "yaml")[1].encode())

    options = read_options(TritonOptions, spec.deployments["theirs"].engine_options)

    assert options.base_url.endswith(":8000")
    assert (options.backend, options.model_name) == ("vllm", "vllm_model")
