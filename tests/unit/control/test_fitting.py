"""A declaration is held against the machine's memory before anything of it starts."""

from msgspec.structs import replace

from control_fakes import model
from pilothouse.adapters.engines.llama_cpp import LlamaCppDriver
from pilothouse.adapters.engines.openai import OpenAIDriver
from pilothouse.control.fitting import Fit, Fitting
from pilothouse.domain.catalogue import CATALOGUE
from pilothouse.domain.model import ModelHeader, ModelVersion
from pilothouse.domain.spec import (
    DeploymentSpec,
    ModelSpec,
    ReplicaRange,
    ScheduleWindow,
    Spec,
)
from pilothouse.ports.engine import Machine

MB = 1_000_000
SMOLLM2 = ModelHeader(
    architecture="llama",
    context_tokens=8192,
    quantization="Q4_1",
    parameters=134_515_008,
    layers=30,
    embedding_length=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    tokens=49_152,
)
VERSION = replace(model("m"), bytes=91 * MB, header=SMOLLM2)
LARGE = replace(VERSION, name="large", bytes=4000 * MB, source="file:/large.gguf", digest="sha256:bb")
OPTIONS = {"context_tokens": 4096, "slots": 4}


def fit(
    spec: Spec,
    *,
    present: Spec | None = None,
    versions: tuple[ModelVersion, ...] = (VERSION, LARGE),
    free_mb: int = 2000,
) -> Fit:
    fitting = Fitting(
        {driver.name: driver for driver in (LlamaCppDriver(), OpenAIDriver())},
        machine=lambda: Machine(cpus=2, memory_available_bytes=free_mb * MB),
        versions=lambda: versions,
    )
    return fitting.fit(spec, present or Spec())


def declared(replicas: ReplicaRange | None = None, **more: DeploymentSpec) -> Spec:
    first = DeploymentSpec(model="m", replicas=replicas or ReplicaRange(), engine_options=OPTIONS)
    return Spec(
        models={"m": ModelSpec(source="file:/m.gguf"), "large": ModelSpec(source="file:/large.gguf")},
        deployments={"d": first, **more},
    )


def test_what_fits_is_neither_refused_nor_warned_of():
    assert fit(declared(ReplicaRange(min=1, max=3))) == Fit()


def test_a_model_that_can_never_fit_is_refused_with_the_sum():
    found = fit(declared(), free_mb=500)

    assert found.faults == [
        "deployments.d: the model does not fit: weights 91 MB + cache 377 MB (4 slots x 4096 tokens x 23040 "
        "bytes) + engine 78 MB = 547 MB, but 500 MB of memory are free; lower context_tokens or slots, free "
        "memory, or take a smaller model"
    ]


def test_a_context_that_the_model_has_not_is_refused_at_once():
    spec = declared(d=DeploymentSpec(model="m", engine_options={"context_tokens": 9000}))

    (fault,) = fit(spec).faults
    assert "context_tokens 9000 is more than the 8192" in fault


def test_replicas_share_the_pages_of_their_file():
    assert not fit(declared(ReplicaRange(min=1, max=4)), free_mb=91 + 4 * 456).faults

    (fault,) = fit(declared(ReplicaRange(min=1, max=4)), free_mb=91 + 4 * 455).faults
    assert fault.startswith("deployments.d.replicas.max: 4 replicas do not fit into 1911 MB: they share the ")
    assert "91 MB" in fault
    assert "4 slots x 4096 tokens" in fault


def test_the_most_of_a_schedule_counts_too():
    night = ScheduleWindow(hours="00:00-06:00", min=1, max=40)

    (fault,) = fit(declared(ReplicaRange(schedule=(night,)))).faults
    assert "40 replicas do not fit" in fault


def test_deployments_that_fit_alone_and_not_together_are_refused_with_the_sum():
    others = {
        name: DeploymentSpec(model="m", engine_options=OPTIONS, replicas=ReplicaRange(min=2, max=2))
        for name in ("e", "f")
    }

    (fault,) = fit(declared(**others)).faults
    assert fault.startswith(
        "deployments: what always runs does not fit together: d 1 x 456 MB + e 2 x 456 MB"
    )
    assert "+ files 91 MB = 2370 MB, but 2000 MB are free for models" in fault


def test_who_sleeps_leaves_its_memory_to_the_others():
    sleepy = ReplicaRange(min=1, max=1, scale_to_zero_after="10m")
    others = {name: DeploymentSpec(model="m", engine_options=OPTIONS, replicas=sleepy) for name in "efgh"}

    found = fit(declared(**others))

    assert not found.faults
    assert "not all can have replicas.max at once" in found.warnings[0]


def test_a_deployment_that_chooses_is_counted_with_the_least_that_it_takes():
    chosen = {name: DeploymentSpec(model="m") for name in "efgh"}

    assert fit(declared(**chosen), free_mb=1600) == Fit()


def test_an_edit_that_brings_nothing_new_is_never_refused_for_memory():
    spec = declared(large=DeploymentSpec(model="large", engine_options=OPTIONS))

    assert fit(spec).faults
    assert fit(spec, present=spec) == Fit()
    assert fit(replace(spec, deployments={"d": spec.deployments["d"]}), present=spec, free_mb=10) == Fit()


def test_another_version_under_the_same_words_is_something_new():
    present = replace(declared(), models={"m": ModelSpec(source="file:/m.gguf")})
    moved = replace(present, models={"m": ModelSpec(source="file:/large.gguf")})
    large = replace(LARGE, name="m")

    assert "does not fit" in fit(moved, present=present, versions=(VERSION, large)).faults[0]


def test_a_model_that_is_not_here_is_only_warned_of():
    (warning,) = fit(declared(), versions=()).warnings

    assert warning.startswith("deployments.d: whether it fits is known once its model is here")
    assert "pilothouse model pull file:/m.gguf --name m" in warning


def test_of_a_model_of_the_catalogue_the_sum_is_known_before_its_pull():
    listed = next(one for one in CATALOGUE if one.name == "qwen3-14b")
    spec = replace(declared(), models={"m": ModelSpec(source=listed.source)})

    found = fit(spec, versions=())

    assert not found.faults
    assert "by the catalogue's rounded sizes, the model does not fit: weights" in found.warnings[0]
    assert not fit(spec, versions=(), free_mb=100_000).warnings


def test_engines_that_run_elsewhere_need_no_memory_here():
    away = DeploymentSpec(
        engine="openai",
        provider_model="x",
        engine_options={"base_url": "https://provider.example/v1"},
    )

    assert fit(Spec(deployments={"away": away}), free_mb=1) == Fit()
