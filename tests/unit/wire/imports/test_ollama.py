from typing import Any

from pilothouse.domain.speccheck import check_spec
from pilothouse.wire.imports import ollama
from pilothouse.wire.imports.carried import Carried
from spec_trees import ENGINES

HEX = "ab" * 32
PLACE = "registry.ollama.ai/library/llama3.2/1b"


def layer(kind: str, digit: str = "a") -> dict[str, Any]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digit * 64}", "size": 1}


def carry(*layers: dict[str, Any], place: str = PLACE, params: Any = None) -> Carried:
    manifest = {"schemaVersion": 2, "mediaType": "x", "config": {}, "layers": list(layers)}
    return ollama.read({place: manifest}, lambda _: params, blobs_folder="/ollama/blobs")


def test_a_model_is_served_from_where_it_lies_under_the_name_its_clients_use():
    carried = carry(layer("model", "b"), layer("params", "c"), params={"num_ctx": 4096, "stop": ["x"]})

    check_spec(carried.spec, engines=ENGINES, targets=["local"])
    assert carried.models["llama3.2-1b"].source == f"file:/ollama/blobs/sha256-{'b' * 64}"
    assert carried.deployments["llama3.2-1b"].common.context_tokens == 4096
    assert carried.endpoints["llama3.2-1b"].aliases == ("llama3.2:1b",)


def test_the_latest_and_those_of_others_keep_their_names():
    latest = carry(layer("model"), place="registry.ollama.ai/library/llama3/latest")
    other = carry(layer("model"), place="hub.example/team/model/q4")

    assert latest.endpoints["llama3"].aliases == ("llama3:latest",)
    (endpoint,) = other.endpoints.values()
    assert endpoint.aliases == ("hub.example/team/model:q4",)


def test_what_changes_the_model_is_not_left_away_in_silence():
    adapter = carry(layer("model"), layer("adapter"))
    cloud = carry(layer("license"))
    rich = carry(
        layer("model"), layer("system"), layer("template"), layer("projector"), layer("params"),
        params={"temperature": 0.1, "num_ctx": 10},
    )  # fmt: skip

    assert not adapter.endpoints
    assert "adapter" in adapter.notes[0].reason
    assert not cloud.endpoints
    assert {note.path.partition(": ")[2] for note in rich.notes} == {
        "system", "template", "projector", "params.temperature",
    }  # fmt: skip


def test_a_digest_that_leads_elsewhere_is_refused():
    carried = carry({"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"})

    assert not carried.models
    assert "digest" in carried.notes[0].reason
