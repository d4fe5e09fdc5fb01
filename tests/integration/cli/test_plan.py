"""`pilothouse plan` as its users call it: files, folders, the registry's home, the catalogue, and prices."""

import json
from pathlib import Path

import click.testing
import msgspec
import pytest

from control_fakes import model
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.cli.main import cli
from pilothouse.domain.errors import InvalidRequest, ModelFileRefused, NotFound, PilothouseError
from pilothouse.domain.model import Artifact
from pilothouse.domain.spec import Spec
from pilothouse.testing.gguf_files import make_gguf

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 3,
    "max_position_embeddings": 128,
}


def run(*arguments: str, home: Path) -> str:
    """What the command printed; its own errors come through."""
    done = click.testing.CliRunner().invoke(cli, ["plan", *arguments, "--home", str(home)])
    if isinstance(done.exception, PilothouseError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(make_gguf())
    return path


def test_a_file_is_planned_without_a_server(tiny: Path, tmp_path: Path) -> None:
    plan = json.loads(run(str(tiny), "--context", "128", "--concurrency", "2", "--json", home=tmp_path))[
        "plan"
    ]

    assert (plan["here"]["slots"], plan["here"]["context_tokens"]) == (2, 128)
    assert plan["here"]["need"]["weights_bytes"] == tiny.stat().st_size
    assert plan["here"]["fits"]


def test_people_see_the_arithmetic_and_why_there_is_no_cost(tiny: Path, tmp_path: Path) -> None:
    said = run(str(tiny), home=tmp_path)

    assert "slots x 128 tokens x 16 bytes" in said
    assert "--prices FILE" in said
    assert "$" not in said


def test_prices_make_costs(tiny: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("as_of: 2026-11-01\nusd_per_hour: {g6.xlarge: 0.8, here: 0.05}\n")

    said = run(str(tiny), "--prices", str(prices), home=tmp_path)

    assert "$0.80/h, $584.00/month" in said
    assert "$0.05/h" in said
    assert "2026-11-01" in said


@pytest.mark.parametrize(
    "text",
    [
        "usd_per_hour: {}",
        "as_of: 2026-11-01\nusd_per_hour: {a: -1}",
        "as_of: 2026-11-01\nusd_per_hours: {}",
        "[",
    ],
)
def test_a_prices_file_that_is_wrong_says_where(text: str, tiny: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(text)

    with pytest.raises(InvalidRequest, match=r"prices\.yaml: .*(as_of|usd_per_hour)"):
        run(str(tiny), "--prices", str(prices), home=tmp_path)


def test_a_folder_of_safetensors_is_planned(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [8, 3], "data_offsets": [0, 48]}}).encode()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(48))
    (folder / "config.json").write_text(json.dumps(CONFIG))

    plan = json.loads(run(f"{folder}", "--json", home=tmp_path))["plan"]

    assert plan["model"]["format"] == "safetensors"
    assert plan["model"]["header"]["layers"] == 2
    assert plan["model"]["header"]["quantization"] == "BF16"
    assert any("llama.cpp here loads GGUF" in note for note in plan["notes"])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileRefused, match=r"0 \.safetensors files"):
        run(f"{tmp_path}", home=tmp_path)


def test_a_file_that_lies_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(40))

    with pytest.raises(ModelFileRefused, match="refused"):
        run(str(tmp_path / "bad.gguf"), home=tmp_path)


def test_the_catalogue_is_planned_before_anything_is_pulled(tmp_path: Path) -> None:
    plan = json.loads(run("qwen3-8b", "--json", home=tmp_path))["plan"]

    assert plan["model"]["origin"] == "catalogue"
    assert any("rounded" in note for note in plan["notes"])


def test_a_catalogue_model_of_unknown_shape_says_to_pull_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="pilothouse model pull"):
        run("qwen3.5-9b", home=tmp_path)


def test_a_model_of_the_registry_is_planned_by_name_and_by_version(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "pilothouse.db", reserve_bytes=0)
    with store.unit() as unit:
        unit.specs.put(Spec(), expected_revision=0, author="a", now=1.0)
        unit.models.put(model("mine"))
    store.close()

    plans = [json.loads(run(name, "--json", home=tmp_path))["plan"] for name in ("mine", "mine@1")]

    assert [plan["model"]["origin"] for plan in plans] == ["registry", "registry"]
    with pytest.raises(NotFound, match="mine"):
        run("mine@2", home=tmp_path)


def test_an_unknown_name_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file, no model in the registry"):
        run("nonesuch", home=tmp_path)


@pytest.mark.parametrize("slo", ["tpot", "speed=1s", "tpot=fast"])
def test_an_objective_that_is_none_is_refused(slo: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"tpot|duration"):
        run(str(tiny), "--slo", slo, home=tmp_path)


@pytest.mark.engine
def test_the_real_model_is_planned_from_its_own_header(smollm2: Artifact, tmp_path: Path) -> None:
    said = run(smollm2.path, "--context", "4096", "--concurrency", "4", "--json", home=tmp_path)

    need = msgspec.json.decode(said)["plan"]["here"]["need"]
    assert need["cache_bytes"] == 4 * 4096 * 23_040
    assert need["weights_bytes"] == smollm2.bytes
