"""
TorchServe 0.12, started with a model of ours: legacy, for nobody maintains it upstream any more.

Belongs here: how a replica is started. Does not: how it is spoken to
(`_torchserve_http`, and `_torchserve_plain` for one that runs already), what runs in
its worker (`_torchserve_handler`). The one idea: all of its HTTP is on sockets in the
replica's private folder, where its own code can be nothing but ours.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pilothouse.adapters.engines import _torchserve_files
from pilothouse.adapters.engines._attached import token_of
from pilothouse.adapters.engines._environment import declared, environment, look, python_of
from pilothouse.adapters.engines._launching import (
    OFFLINE,
    cache_bytes,
    check_fits,
    context_of,
    threads_of,
    world,
)
from pilothouse.adapters.engines._torchserve_http import INFERENCE, TorchServeEngine
from pilothouse.adapters.engines._torchserve_plain import PlainTorchServeEngine
from pilothouse.domain.model import Artifact, ModelFormat
from pilothouse.domain.options import AttachOptions, Count, read_options
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import (
    NO_OPTIONS,
    Engine,
    EngineAbility,
    EngineInfo,
    Installed,
    Launch,
    Machine,
    Promise,
)

VERSION = "0.12.0"
"""The last there will be."""
LEAST_JAVA = 17
JAVA_COMMAND = "apt-get install openjdk-17-jre-headless"
PROCESS_BYTES = 1_000_000_000
"""Java (145 to 210 MB were measured, its heap is bounded) and a worker with torch and transformers."""
JAVA_OPTIONS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:-StackTraceInThrowable",
    "-Djava.io.tmpdir={folder}",
    "-Dlog4j.configurationFile=file://{folder}/log4j2.xml",
)
"""Small, since it only hands on; and without frames, which would bury the reasons of its errors."""
DEFAULT_CONTEXT_TOKENS = 4096
READY_TIMEOUT_S = 300.0
ONE_SLOT = (
    "slots: a worker of TorchServe answers one request at a time, and more workers would copy the weights; "
    "fix: leave slots out and say `replicas`"
)


class TorchServeOptions(AttachOptions, frozen=True, kw_only=True):
    """`engine_options` of `engine: torchserve`."""

    threads: Count = 0
    """Processor threads; by default one less than there are, for the gateway's sake."""
    queue_size: Count = 0
    """Requests that may wait in TorchServe; more are refused as overloaded. 0 is TorchServe's own 100."""

    def __post_init__(self) -> None:
        if self.slots > 1:
            raise ValueError(ONE_SLOT)


class TorchServeDriver:
    """Implements `ports.engine.EngineDriver`."""

    name = "torchserve"
    note = "legacy: nobody maintains it upstream, nor mends its holes"
    options = TorchServeOptions
    abilities: frozenset[EngineAbility] = frozenset({"attach", "launch", "stream", "cancel"})
    formats: frozenset[ModelFormat] = frozenset({"safetensors"})
    cannot: Mapping[Promise, str] = MappingProxyType(
        {"side_by_side": "one worker answers one request at a time: others wait in TorchServe's queue"}
    )
    environment = declared("torchserve", "torch==2.13.0", "transformers==5.23.0", f"torchserve=={VERSION}")

    def __init__(self, *, cohort: Cohort | None = None) -> None:
        self._cohort = cohort

    def installed(self) -> Installed:
        found = look(self.name, package="torchserve", known=VERSION)
        if found.ok and (missing := missing_java(find_java())):
            return Installed(ok=False, version=VERSION, missing=missing, install_command=JAVA_COMMAND)
        return found

    def launch(
        self,
        name: str,  # noqa: ARG002 - the target fills it in
        spec: DeploymentSpec,
        artifact: Artifact,
        machine: Machine,
    ) -> Launch:
        options = read_options(TorchServeOptions, spec.engine_options)
        context = context_of(options.context_tokens, artifact, default=DEFAULT_CONTEXT_TOKENS)
        need = PROCESS_BYTES + artifact.bytes + cache_bytes(artifact, context)
        parts = f"weights {artifact.bytes / 1e6:.0f} MB, Java, torch, and a context of {context} tokens"
        check_fits(need, machine, parts)
        threads = threads_of(options.threads, machine)
        given = {"folder": artifact.path, "threads": threads, "context_tokens": context}
        return Launch(
            argv=self._argv(),
            config=_torchserve_files.properties(),
            files=_torchserve_files.files(given, version=VERSION, queue_size=options.queue_size),
            ports=("grpc_inference", "grpc_management"),
            env=world(threads, **OFFLINE),
            address="unix:{folder}/" + INFERENCE,
            slots=0,
            context_tokens=context,
            memory_bytes=need,
            ready_timeout_s=READY_TIMEOUT_S,
        )

    def _argv(self) -> tuple[str, ...]:
        site = str(site_packages(self.name))
        return (
            find_java() or "/usr/bin/java",
            *JAVA_OPTIONS,
            f"-Dmodel_server_home={site}",
            "-cp",
            f"{site}/ts/frontend/model-server.jar",
            "org.pytorch.serve.ModelServer",
            "--python",
            python_of(self.name),
            "-f",
            "{config}",
            "-s",
            "{folder}/store",
            "-ncs",
        )

    def connect(
        self,
        address: str,
        *,
        model: str,
        context_tokens: int,
        secret: Secret | None = None,
        allow_private: bool = False,
        options: Mapping[str, Any] = NO_OPTIONS,  # noqa: ARG002 - all of them are the handler's
    ) -> Engine:
        """
        Raises:
            OperationFailed: The address is malformed or not allowed, or the secret is no bearer token.
        """
        info = EngineInfo(name=self.name, context_tokens=context_tokens)
        if address.startswith("unix:"):
            folder = address.removeprefix("unix:").removesuffix(f"/{INFERENCE}")
            return TorchServeEngine(info, folder, cohort=self._cohort)
        return PlainTorchServeEngine(
            info,
            address.rstrip("/"),
            model=model,
            token=token_of(secret),
            allow_private=allow_private,
            cohort=self._cohort,
        )


def site_packages(name: str) -> Path:
    """Of the environment; a usual one where there is none, for `installed` says so before a start."""
    found = sorted(environment(name).glob("lib/python3*/site-packages"))
    return found[0] if found else environment(name) / "lib/python3/site-packages"


def find_java() -> str:
    """The absolute path of the first on the path, "" without one."""
    found = shutil.which("java")
    return str(Path(found).absolute()) if found else ""


def missing_java(java: str) -> str:
    """What is missing; "" when it will do. Its `release` file says the version, where it has one."""
    if not java:
        return f"Java {LEAST_JAVA} or later"
    try:
        text = (Path(java).resolve().parents[1] / "release").read_text(encoding="utf-8")
    except OSError:
        return ""
    version = text.partition('JAVA_VERSION="')[2].partition('"')[0]
    major = version.removeprefix("1.").partition(".")[0].partition("+")[0]
    if major.isdigit() and int(major) < LEAST_JAVA:
        return f"Java {LEAST_JAVA} or later, for {java} is {version}"
    return ""
