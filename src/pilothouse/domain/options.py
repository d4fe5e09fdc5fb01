"""
What a deployment says to its engine: `engine_options`.

Each driver has a type of its own, made from one of these two, so that what an
engine does not take is refused as any unknown field is. What the core reads
itself stands here, with one meaning for all engines.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from pilothouse.domain.errors import InvalidRequest
from pilothouse.kit.documents import show_path
from pilothouse.kit.shapes import fit

Count = Annotated[int, Meta(ge=0)]


class EngineOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every engine takes. 0 means: the engine's driver chooses."""

    context_tokens: Count = 0
    """Tokens of one request, prompt and answer together."""
    slots: Count = 0
    """Requests answered at once by one replica."""


class AttachOptions(EngineOptions, frozen=True, kw_only=True):
    """Of engines that may also run already, started by somebody else."""

    base_url: str = ""
    """Where the server already runs; then Pilothouse starts none and stops none."""
    secret: str = ""
    """Name of the secret that it asks for, see `pilothouse secret`; bound to the host of `base_url`."""
    allow_private_network: bool = False
    """Let the address be loopback or private."""
    max_inflight: Count = 64
    """Requests in flight there from one worker."""


class CommonOptions(AttachOptions, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What the core reads of any engine's options; the rest is the driver's."""

    task: str = ""
    """What its model is for, where an engine's options have that: `text`, `embedding` or `tensors`."""


def written(options: EngineOptions) -> dict[str, Any]:
    """As they stand in a spec: what is as by default is left out."""
    return dict(msgspec.to_builtins(options))


Options = TypeVar("Options", bound=EngineOptions)


def read_options(shape: type[Options], values: Mapping[str, Any]) -> Options:
    """
    Raises:
        InvalidRequest: With every fault; checked specs have none.
    """
    if faults := option_faults(shape, values):
        raise InvalidRequest("; ".join(faults), param="engine_options", faults=faults)
    return msgspec.convert(values, shape)


def option_faults(shape: type[EngineOptions], values: Mapping[str, Any]) -> list[str]:
    """Each beginning with its field's path: `engine_options.slots: -1 is less than 0`."""
    _, misfits = fit(values, shape, {})
    faults = [f"{show_path(('engine_options', *one.path))}: {one.text}" for one in misfits]
    if not faults:
        try:
            msgspec.convert(values, shape)
        except msgspec.ValidationError as exc:  # a bound that `fit` does not know
            faults = [f"engine_options: {exc}"]
    return faults
