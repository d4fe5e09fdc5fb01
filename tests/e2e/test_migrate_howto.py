"""The how-to of other people's tools does what it says: its blocks, the tools, the real program."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures_node import FOLDER
from program_rig import Program, program
from tool_envs import environment

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto" / "migrate.md"
SPEC = """
version: 1
models: {{smollm2: {{source: "file:{model}"}}}}
deployments: {{smollm2: {{model: smollm2, engine_options: {{context_tokens: 2048, slots: 2}}}}}}
endpoints: {{smollm2: {{routes: [{{deployment: smollm2}}]}}}}
"""
SECTIONS = {
    "OpenAI's client for Python": "",
    "Anthropic's client for Python": "",
    "`llm`": "llm",
    "LangChain": "langchain",
    "Ollama's Python client": "ollama",
}
"""By the environment of each; "" is ours, which has the clients for other tests."""

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def blocks(title: str) -> tuple[str, str]:
    """What a section runs, and what it says that this prints."""
    (section,) = [part for part in HOWTO.read_text().split("\n## ")[1:] if part.startswith(title + "\n")]
    run, printed = [
        re.findall(rf"^```{kind}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[0] for kind in ("sh", "text")
    ]
    return run, printed


@pytest.fixture(scope="module")
def running(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program(tmp_path_factory.mktemp("migrate") / "home", SPEC.format(model=smollm2_gguf)) as started:
        yield started


def printed_by(script: str, running: Program, folder: Path, *bins: Path | str) -> list[str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    env = {
        **kept,
        "PATH": ":".join([*map(str, bins), os.environ["PATH"]]),
        "KEY": running.admin_key,
        "LLM_USER_PATH": str(folder),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
    }
    script = script.replace("http://127.0.0.1:8420", running.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.strip().splitlines()


@pytest.mark.parametrize("title", SECTIONS)
def test_a_tool_prints_what_the_how_to_shows(
    title: str, running: Program, model_cache: Path, tmp_path: Path, record_property: Any
) -> None:
    named = SECTIONS[title]
    bin_ = environment(named, model_cache / "tools") if named else Path(sys.executable).parent
    run, shown = blocks(title)

    printed = printed_by(run, running, tmp_path, bin_)

    assert len(printed) == len(shown.splitlines())  # other words on another processor, but as many lines
    assert all(line.strip() for line in printed)
    record_property("note", f"{title} as in the how-to: {printed == shown.splitlines()}")


def test_openais_client_for_node_prints_it_too(node: str, running: Program, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")

    printed = printed_by(blocks("OpenAI's client for Node")[0], running, tmp_path)

    assert len(printed) == 1


def test_the_evaluation_harness_scores_a_task_by_the_models_own_probabilities(
    running: Program, model_cache: Path, smollm2_gguf: Path, tmp_path: Path
) -> None:
    bin_ = environment("lm-eval", model_cache / "tools")
    maker = [bin_ / "python", ROOT / "tests" / "gguf_tokenizer.py", smollm2_gguf, tmp_path / "tokenizer"]
    subprocess.run(maker, check=True, capture_output=True, timeout=120)
    run, shown = blocks("lm-evaluation-harness")
    run = run.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(tmp_path / "tokenizer"))

    printed = printed_by(run, running, tmp_path, bin_)

    (row,) = [line for line in printed if line.startswith("|capitals")]
    assert row.split("|")[5:8] == shown.splitlines()[2].split("|")[5:8]


def test_the_harness_is_answered_in_chats_as_well(
    running: Program, model_cache: Path, tmp_path: Path
) -> None:
    bin_ = environment("lm-eval", model_cache / "tools")
    (tmp_path / "said.jsonl").write_text('{"q": "Say the word yes.", "a": "yes"}\n' * 2)
    (tmp_path / "said.yaml").write_text(
        "task: said\ndataset_path: json\ndataset_kwargs: {data_files: {test: said.jsonl}}\n"
        'test_split: test\noutput_type: generate_until\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\n'
        'generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 8}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    url = f"{running.url}/v1/chat/completions"
    run = (
        f'export OPENAI_API_KEY="$KEY"\nlm_eval --model local-chat-completions --tasks said --include_path . '
        f"--apply_chat_template --model_args model=smollm2,base_url={url}\n"
    )

    printed = printed_by(run, running, tmp_path, bin_)

    assert any(line.startswith("|said") for line in printed)
