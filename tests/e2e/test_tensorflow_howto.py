"""The page about TensorFlow does what it says, with a SavedModel that its own command trained."""

import re
import sys
from pathlib import Path

import pytest

from page_rig import blocks, run
from pilothouse.adapters.engines.tensorflow import TensorFlowOptions
from pilothouse.config import read_spec
from pilothouse.domain.options import read_options
from program_rig import program
from tensorflow_model import needs_tensorflow

ROOT = Path(__file__).parents[2]
PAGE = "serve-tensorflow.md"
READY_S = 300.0


@pytest.mark.engine
@pytest.mark.slow
@needs_tensorflow
def test_the_page_works_from_training_to_an_answer(tmp_path: Path) -> None:
    install, train, served = blocks(PAGE, "sh")
    folder = tmp_path / "letters"
    few = train.replace(" letters --steps 240", f" {folder} --steps 20")
    run(few, ROOT, ENGINES=f"{sys.prefix}/engines")
    spec = blocks(PAGE, "yaml")[0].replace("/models/letters", str(folder))
    (tmp_path / "tensorflow.yaml").write_text(spec)

    with program(tmp_path / "home", spec, ready_s=READY_S) as server:
        address = {"PILOTHOUSE_URL": server.url, "PILOTHOUSE_API_KEY": server.admin_key, "COLUMNS": "200"}
        said = run(served, tmp_path, **address)

    assert install == "pilothouse engine install tensorflow\n"
    assert re.search(r"letters\S* .*ready", said)
    assert len(re.findall(r'"text":"[^"]', said)) >= 3
    assert "data: [DONE]" in said
    assert '"completion_tokens":8' in said


def test_the_spec_for_one_that_runs_already_is_one() -> None:
    spec = read_spec(blocks(PAGE, "yaml")[1].encode())

    options = read_options(TensorFlowOptions, spec.deployments["theirs"].engine_options)

    assert options.base_url.endswith(":8501")
    assert spec.deployments["theirs"].provider_model == "text/versions/3"
