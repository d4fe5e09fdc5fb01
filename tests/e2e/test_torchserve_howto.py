"""The page about TorchServe does what it says, with the real server and a small model of random weights."""

import re
from pathlib import Path

import pytest

from page_rig import blocks, run
from pilothouse.adapters.engines.torchserve import TorchServeDriver, TorchServeOptions
from pilothouse.config import read_spec
from pilothouse.domain.options import read_options
from program_rig import program
from tiny_llama import make_tiny_llama

FOUND = TorchServeDriver().installed()
needs_it = pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}")
PAGE = "serve-with-torchserve.md"
READY_S = 300.0


@pytest.mark.slow
@needs_it
def test_the_page_works_from_apply_to_an_answer(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    make_tiny_llama(folder, engine="torchserve")
    spec = blocks(PAGE, "yaml")[0].replace("/models/tiny", str(folder))
    (tmp_path / "torchserve.yaml").write_text(spec)
    install, served = blocks(PAGE, "sh")

    with program(tmp_path / "home", spec, ready_s=READY_S) as server:
        address = {"PILOTHOUSE_URL": server.url, "PILOTHOUSE_API_KEY": server.admin_key, "COLUMNS": "200"}
        said = run(served, tmp_path, **address)

    assert install == "pilothouse engine install torchserve\n"
    assert re.search(r"torchserve .*legacy: nobody maintains it", said)
    assert re.search(r"tiny\S* .*ready", said)
    assert len(re.findall(r'"text":"\w"', said)) == 4
    assert said.rstrip().endswith("data: [DONE]")


def test_the_spec_for_one_that_runs_already_is_one() -> None:
    spec = read_spec(blocks(PAGE, "yaml")[1].encode())

    options = read_options(TorchServeOptions, spec.deployments["theirs"].engine_options)

    assert options.base_url.endswith(":8080")
    assert spec.deployments["theirs"].provider_model
