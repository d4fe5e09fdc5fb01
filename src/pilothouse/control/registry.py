"""
The registry: model versions as the store records them, and the way in for new ones.

`control.models` brings files and checks them, in threads; here is what is
recorded of them, and who may be removed. It is the control loop's shelf, and
what the admin API calls models.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from pilothouse.control.models import Models
from pilothouse.control.transact import Transact
from pilothouse.domain.artefact import ARTIFACT_TYPE, CONFIG_TYPE, LAYER_TYPE, write_config
from pilothouse.domain.errors import (
    Conflict,
    ModelFileRefused,
    NotFound,
    NotSupported,
    OperationFailed,
    PermissionDenied,
)
from pilothouse.domain.licence import licence_fault
from pilothouse.domain.model import Artifact, ModelVersion
from pilothouse.domain.model_name import check_name, split_reference
from pilothouse.domain.model_ref import users_of_version
from pilothouse.domain.spec import ModelSpec, Spec
from pilothouse.domain.specedit import users_of
from pilothouse.domain.status import Progress
from pilothouse.kit.oci import Artefact, layout_chunks
from pilothouse.ports.store import UnitOfWork

Tell = Callable[[Progress], None]
MAY_CHANGE = frozenset({"file", "hf", "oci", "s3"})
"""Sources where another file may come to lie at the same address, as a new version."""


class Verified(Struct, frozen=True, kw_only=True):
    """What a second look at a version's file found; `fault` says what is wrong and what to do."""

    name: str
    version: str
    digest: str
    ok: bool
    fault: str = ""


class Registry:
    """
    Args:
        declared: The present spec: what it deploys is not removed.
        arrived: Called with each version that was pulled.
        in_use: Digests of the models that replicas run.
        gone: Called with versions that were removed.
    """

    def __init__(
        self,
        models: Models,
        transact: Transact,
        *,
        declared: Callable[[], Spec],
        arrived: Callable[[ModelVersion], None],
        in_use: Callable[[], frozenset[str]],
        gone: Callable[[Iterable[ModelVersion]], None] = lambda _: None,
    ) -> None:
        self._models = models
        self._transact = transact
        self._declared = declared
        self._arrived = arrived
        self._in_use = in_use
        self._gone = gone

    async def versions(self) -> list[ModelVersion]:
        """By name, newest first."""
        return await self._transact(lambda unit: unit.models.all())

    async def pull(
        self,
        source: str,
        *,
        name: str | None,
        licence: str,
        progress: Tell,
        version: str = "",
        card: str = "",
    ) -> ModelVersion:
        """
        Fetch, check and record. Cancelling ends the download; what it brought is continued next time.

        Args:
            version: What this version is called; by default as its source calls it, else by its digest.

        Raises:
            PermissionDenied: The licence policy does not allow it.
            Conflict: Another file has that name and version already: versions never change.
        """
        if version:
            check_name(version)
        if licence:
            self._refuse_licence(licence)
        known = _known(await self.versions(), source, version)
        is_cancelled = threading.Event()

        def tell(stage: str, done_bytes: int, total_bytes: int) -> None:
            if is_cancelled.is_set():
                raise OperationFailed("the pull was cancelled")
            progress(Progress(stage=stage, done_bytes=done_bytes, total_bytes=total_bytes))

        try:
            model = await asyncio.to_thread(
                self._models.pull, source, name=name, licence=licence, progress=tell, known=known
            )
        except asyncio.CancelledError:
            is_cancelled.set()  # the thread sees it at its next word
            raise
        self._refuse_licence(model.licence)
        return await self.record(replace(model, version=version or model.version, card=card or model.card))

    async def record(self, model: ModelVersion) -> ModelVersion:
        """
        Write down a version whose file is here.

        Raises:
            Conflict: Another file has that name and version already.
        """
        await self._transact(lambda unit: unit.models.put(model))
        self._arrived(model)
        return model

    async def pull_declared(self, name: str, declared: ModelSpec, *, progress: Tell) -> ModelVersion:
        return await self.pull(declared.source, name=name, licence=declared.licence, progress=progress)

    async def load(self, model: ModelVersion) -> Artifact:
        declared = self._declared().models.get(model.name)
        self._refuse_licence((declared.licence if declared else "") or model.licence)
        return await asyncio.to_thread(self._models.load, model)

    async def annotate(self, name: str, version: str, *, card: str) -> ModelVersion:
        """NotFound when there is no such version."""
        return await self._transact(lambda unit: unit.models.annotate(name, version, card=card))

    async def export(self, name: str, version: str) -> Iterator[bytes]:
        """
        A version as the tar of an OCI image layout, piece by piece; its file was verified just before.

        Raises:
            NotFound: There is no such version, or its file is gone.
            ModelFileRefused: Its file was changed.
        """
        (model,) = _named(f"{name}@{version}", await self.versions())
        if model.format != "gguf":
            raise NotSupported(
                f"{model.reference} is a folder ({model.format}), and only GGUF files are exported"
            )
        artifact = await asyncio.to_thread(self._models.load, model)
        return layout_chunks(
            Artefact(
                artifact_type=ARTIFACT_TYPE,
                config_type=CONFIG_TYPE,
                config=write_config(model),
                layer_type=LAYER_TYPE,
                layer=Path(artifact.path),
                digest=model.digest,
                size=model.bytes,
                title=f"{model.name}.gguf",
                reference=model.version,
            )
        )

    async def verify(self, name: str) -> list[Verified]:
        """
        Read the files of a model's versions again: digest, header, licence.

        Args:
            name: All of its versions, or `name@version`.

        Raises:
            NotFound: There is none.
        """
        return [await self._verified(model) for model in _named(name, await self.versions())]

    async def _verified(self, model: ModelVersion) -> Verified:
        fault = licence_fault(model.licence, self._declared().licences.allowed)
        try:
            await asyncio.to_thread(self._models.check, model)
        except (NotFound, ModelFileRefused) as exc:
            fault = exc.message
        return Verified(
            name=model.name, version=model.version, digest=model.digest, ok=not fault, fault=fault
        )

    def _refuse_licence(self, licence: str) -> None:
        if fault := licence_fault(licence, self._declared().licences.allowed):
            raise PermissionDenied(f"not taken: {fault} (`licences.allowed` of the spec)")

    async def remove(self, name: str) -> list[ModelVersion]:
        """
        Forget all versions of that name, or the one of `name@version`; delete files that nobody else needs.

        Raises:
            NotFound: There is none.
            Conflict: A deployment uses it, or a replica still runs it.
        """
        all_versions = await self.versions()
        versions = _named(name, all_versions)
        spec = self._declared()
        users = [user for model in versions for user in users_of_version(model, spec, all_versions)]
        if len(versions) == sum(model.name == versions[0].name for model in all_versions):
            users += users_of(spec, "models", versions[0].name)
        if users:
            raise Conflict(f"model {name} is used by {_worded(users[0])}; change that first")
        in_use = self._in_use()
        left = {model.digest for model in all_versions if model not in versions}
        if any(model.digest in in_use - left for model in versions):
            raise Conflict(f"a replica still runs model {name}; it ends within a minute, then try again")

        def forget(unit: UnitOfWork) -> None:
            for model in versions:
                unit.models.remove(model.name, model.version)

        await self._transact(forget)
        self._gone(versions)
        await asyncio.to_thread(self._models.collect, left | in_use)
        return versions


def _worded(path: str) -> str:
    """`deployments.d.model` as people say it."""
    kind, _, rest = path.partition(".")
    return f"deployment {rest.removesuffix('.model')}" if kind == "deployments" else path


def _known(versions: list[ModelVersion], source: str, version: str) -> ModelVersion | None:
    """What a pull must bring again: the first from there, unless this is to be a version of its own."""
    from_there = [model for model in versions if model.source == source]
    if version and source.partition(":")[0] in MAY_CHANGE:
        from_there = [model for model in from_there if model.version == version]
    return from_there[-1] if from_there else None


def _named(name: str, versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    """
    Raises:
        NotFound: There is none.
    """
    base, version = split_reference(name)
    found = [model for model in versions if model.name == base and version in ("", model.version)]
    if not found:
        raise NotFound(f"there is no model {name[:128]!r}; see: pilothouse model list")
    return found
