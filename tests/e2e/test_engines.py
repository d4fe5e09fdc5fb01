"""The page about every engine: one spec, one SDK call, and status side by side, of all that are installed."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from pilothouse.app.engines import own_drivers
from program_rig import program
from program_shell import Shell
from tensorflow_model import make_savedmodel

pytestmark = [pytest.mark.engine, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "howto" / "every-engine.md"
MAKE_S = 600.0


def spec_of(page: str) -> dict[str, Any]:
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.S)
    return yaml.safe_load(block)


def question_of(page: str) -> dict[str, Any]:
    """What the page's call passes beside the model."""
    (block,) = re.findall(r"completions\.create\(\s*model=name, (.*?)\s*\)\n", page, flags=re.S)
    call = ast.parse(f"call({block})", mode="eval").body
    assert isinstance(call, ast.Call)
    return {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}


@pytest.fixture(scope="module")
def installed() -> list[str]:
    """Names of the page's deployments whose engine is here."""
    drivers, declared = own_drivers(), spec_of(PAGE.read_text())["deployments"]
    found = [
        name
        for name, one in declared.items()
        if one["engine"] in drivers and drivers[one["engine"]].installed().ok
    ]
    if len(found) < 2:
        pytest.skip(f"of the engines, only {found} are installed: pilothouse engine install NAME")
    return found


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory, installed: list[str]) -> Path | None:
    """A small SavedModel, where TensorFlow is here."""
    if "tensorflow" not in installed:
        return None
    return make_savedmodel(tmp_path_factory.mktemp("savedmodel") / "letters")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, smollm2_gguf: Path, installed: list[str]) -> Path:
    """SmolLM2 as a folder of safetensors, made of its GGUF file."""
    if "transformers" not in installed:
        pytest.skip("the weights are made with PyTorch: pilothouse engine install transformers")
    folder = tmp_path_factory.mktemp("weights") / "smollm2"
    argv = [sys.executable, str(ROOT / "tools" / "smollm2_folder.py"), str(folder)]
    subprocess.run([*argv, "--gguf", str(smollm2_gguf)], check=True, timeout=MAKE_S, capture_output=True)
    return folder


def test_one_spec_serves_one_prompt_from_every_engine_side_by_side(
    tmp_path: Path, smollm2_gguf: Path, weights: Path, letters: Path | None, installed: list[str]
) -> None:
    page = PAGE.read_text()
    spec, question = spec_of(page), question_of(page)
    places = {"smollm2-gguf": smollm2_gguf, "smollm2": weights, "letters": letters}
    spec["models"] = {name: {"source": f"file:{place}"} for name, place in places.items() if place}
    for part in ("deployments", "endpoints"):
        spec[part] = {name: spec[part][name] for name in installed}

    with program(tmp_path / "home", yaml.safe_dump(spec), ready_s=MAKE_S) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.admin_key) as client:
            answers = {name: client.completions.create(model=name, **question) for name in installed}
        status = Shell(server).run("status")

    for name, answer in answers.items():
        said = answer.choices[0].text
        # The SavedModel was trained for seconds, and knows no capitals.
        assert said if name == "tensorflow" else "Paris" in said, (name, answer)
        assert answer.usage is not None
        assert 0 < answer.usage.completion_tokens <= question["max_tokens"], name
        assert re.search(rf"^{name}\b.*ready", status, flags=re.M), status
