from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.speccheck import check_spec
from pilothouse.wire.imports import kserve
from pilothouse.wire.imports.carried import Carried
from spec_trees import ENGINES


def service(predictor: dict[str, Any], *, url: str = "", name: str = "llama") -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "models"},
        "spec": {"predictor": predictor},
        **({"status": {"url": url}} if url else {}),
    }


def carry(*documents: object) -> Carried:
    carried = kserve.read(list(documents))
    check_spec(carried.spec, engines=ENGINES, targets=["local"])
    return carried


def test_a_gguf_model_is_run_here_with_its_replicas():
    carried = carry(
        service(
            {
                "minReplicas": 0, "maxReplicas": 3, "scaleTarget": 4,
                "containerConcurrency": 8, "timeout": 90,
                "model": {
                    "modelFormat": {"name": "gguf"}, "storageUri": "hf://org/model/model-q4.gguf",
                    "resources": {"limits": {"cpu": 4}},
                },
            }
        )
    )  # fmt: skip

    deployment = carried.deployments["llama"]
    assert carried.models["llama"].source == "hf:org/model/model-q4.gguf"
    assert (deployment.replicas.min, deployment.replicas.max, deployment.replicas.target_inflight) == (
        0,
        3,
        4,
    )
    assert deployment.common.slots == 8
    assert carried.endpoints["llama"].limits.timeout == "90s"
    assert [note.path for note in carried.notes] == ["llama.predictor.model.resources"]


def test_a_service_that_runs_is_attached_where_it_runs():
    hf = service(
        {
            "model": {
                "modelFormat": {"name": "huggingface"},
                "args": ["--model_name=chat"],
                "storageUri": "hf://o/m",
            }
        },
        url="https://llama.models.example.com",
    )
    llm = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "LLMInferenceService",
        "metadata": {"name": "big"},
        "spec": {"model": {"uri": "hf://o/big", "name": "o/big"}, "replicas": 2, "router": {}},
        "status": {"url": "http://big.models.svc"},
    }
    carried = carry({"kind": "List", "apiVersion": "v1", "items": [hf, llm]})

    first, second = carried.deployments["llama"], carried.deployments["big"]
    assert first.common.base_url == "https://llama.models.example.com/openai/v1"
    assert (first.provider_model, second.provider_model) == ("chat", "o/big")
    assert second.common.base_url == "http://big.models.svc/v1"
    assert second.common.allow_private_network


def test_what_cannot_be_run_here_is_told_by_its_name():
    carried = carry(
        service({"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "gs://b/model"}}, name="iris"),
        service({"model": {"storageUri": "pvc://volume/model.gguf"}}, name="disk"),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {"k": "NEVER"}},
    )

    assert not carried.endpoints
    assert [note.path for note in carried.notes] == ["iris", "disk.storageUri", "document 3"]
    assert "NEVER" not in str(carried.notes)


FIELDS = st.sampled_from(["spec", "predictor", "model", "metadata", "items", "uri"])
anything = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
)


@given(anything)
def test_no_document_whatever_breaks_the_import(value: object):
    for kind in ("InferenceService", "LLMInferenceService", "List"):
        fields = value if isinstance(value, dict) else {"spec": value}
        carry({**fields, "apiVersion": "serving.kserve.io/v1", "kind": kind}, value)
