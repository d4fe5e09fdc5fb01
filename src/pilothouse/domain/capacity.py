"""
What a model needs: `pilothouse plan`, as pure arithmetic.

The one idea: the engine's own formula (`domain.sizing`) is the planner's too, so
what is planned is what is started. What was not measured is called an estimate or
a bound, and money is only what the user's prices say.
"""

from msgspec import Struct

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.instances import INSTANCES, Instance
from pilothouse.domain.model import ModelHeader
from pilothouse.domain.prices import HERE, Prices
from pilothouse.domain.quantizations import QUANTIZATIONS, bits_of, estimated_bytes
from pilothouse.domain.room import KEPT_FREE_BYTES
from pilothouse.domain.sizing import MemoryNeed, Sizing, Wish, arithmetic, choose_sizing, memory_need
from pilothouse.domain.splits import GPU_USED_RATIO, GpuNeed, Split, even_splits, gpu_need

LORA_RANK = 16
TRAINED_BYTES = 14
"""Of a parameter in training with Adam: weights of 2 and 4 bytes, two moments of 4 each."""
_ENDLESS = 1 << 62


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of a model, and from where."""

    name: str
    origin: str
    """`file`, `registry` or `catalogue`"""
    format: str
    file_bytes: int
    header: ModelHeader
    is_approximate: bool = False
    """From the catalogue: its size is rounded."""


class Room(Struct, frozen=True, kw_only=True):
    """What this machine has free."""

    memory_bytes: int
    disk_bytes: int
    workers: int = 1


class Slo(Struct, frozen=True, kw_only=True):
    """Seconds; None is no objective."""

    tpot_s: float | None = None
    """Of one token after the first, at most."""
    ttft_s: float | None = None
    """Until the first token, at most."""


class Here(Struct, frozen=True, kw_only=True):
    slots: int
    context_tokens: int
    need: MemoryNeed
    total_bytes: int
    free_bytes: int
    fits: bool
    arithmetic: str
    remedy: str
    """What would make it fit; empty when it does."""
    micro_usd_per_hour: int | None


class Choice(Struct, frozen=True, kw_only=True):
    """The same model at another quantization."""

    name: str
    file_bytes: int
    total_bytes: int
    fits: bool
    is_this_file: bool
    caveat: str


class SplitNeed(Struct, frozen=True, kw_only=True):
    tensor: int
    pipeline: int
    per_gpu: GpuNeed
    per_gpu_bytes: int


class Disk(Struct, frozen=True, kw_only=True):
    """Bytes; all but the file are for planning, none is taken by serving alone."""

    file_bytes: int
    free_bytes: int
    fits: bool
    checkpoint_bytes: int
    """Of a full fine-tune with its optimizer, to go on from: estimated."""
    adapter_bytes: int
    """Of a LoRA adapter of rank 16 on the attention, 16-bit: estimated."""
    answers_bytes: int
    """Of a million recorded requests that fill their context, at 4 bytes a token: at most, estimated."""


class Match(Struct, frozen=True, kw_only=True):
    """An instance that holds the model."""

    cloud: str
    instance: str
    gpu: str
    gpus: int
    link: str
    cpus: int
    tensor: int
    pipeline: int
    per_gpu_bytes: int
    usable_bytes: int
    """Of each GPU's memory."""
    replicas: int
    """So many fit beside each other."""
    least_tpot_s: float | None
    """No token can come sooner: its GPUs must read their weights. Real engines are slower.
    None for a mixture of experts, of which each token reads a part."""
    meets_slo: bool
    """False: it cannot be met there. True says only that it is not impossible."""
    micro_usd_per_hour: int | None


class CapacityPlan(Struct, frozen=True, kw_only=True):
    model: Facts
    here: Here
    quantizations: list[Choice]
    splits: list[SplitNeed]
    disk: Disk
    instances: list[Match]
    notes: list[str]


def plan_capacity(
    facts: Facts, wish: Wish, room: Room, *, slo: Slo | None = None, prices: Prices | None = None
) -> CapacityPlan:
    """
    Raises:
        OperationFailed: The model has no such context, or fewer slots than workers were asked for.
    """
    slo = slo or Slo()
    sizing = _sizing(facts, wish, room)
    header, size = facts.header, facts.file_bytes
    splits = even_splits(header)
    needs = [
        gpu_need(header, size, split, slots=sizing.slots, context_tokens=sizing.context_tokens)
        for split in splits
    ]
    per_split = list(zip(splits, needs, strict=True))
    matches = [_match(one, facts, per_split, slo, prices) for one in INSTANCES]
    return CapacityPlan(
        model=facts,
        here=_here(facts, sizing, room, prices),
        quantizations=_choices(facts, sizing, room),
        splits=[
            SplitNeed(tensor=s.tensor, pipeline=s.pipeline, per_gpu=n, per_gpu_bytes=n.total_bytes)
            for s, n in per_split
        ],
        disk=_disk(facts, sizing, room),
        instances=sorted((match for match in matches if match), key=_cheapest),
        notes=_notes(facts, slo),
    )


def _sizing(facts: Facts, wish: Wish, room: Room) -> Sizing:
    """As the engine would be started here; what does not fit is planned as it was asked for."""
    try:
        return choose_sizing(facts.header, facts.file_bytes, wish, free_bytes=room.memory_bytes)
    except OperationFailed:
        return choose_sizing(facts.header, facts.file_bytes, wish, free_bytes=_ENDLESS)


def _here(facts: Facts, sizing: Sizing, room: Room, prices: Prices | None) -> Here:
    need = _need(facts.header, facts.file_bytes, sizing)
    fits = need.total_bytes <= room.memory_bytes
    return Here(
        slots=sizing.slots,
        context_tokens=sizing.context_tokens,
        need=need,
        total_bytes=need.total_bytes,
        free_bytes=room.memory_bytes,
        fits=fits,
        arithmetic=arithmetic(facts.header, facts.file_bytes, sizing),
        remedy="" if fits else _remedy(facts, sizing, room),
        micro_usd_per_hour=prices.micro_usd_per_hour(HERE) if prices else None,
    )


def _need(header: ModelHeader, file_bytes: int, sizing: Sizing) -> MemoryNeed:
    return memory_need(
        header,
        file_bytes,
        slots=sizing.slots,
        context_tokens=sizing.context_tokens,
        batch_tokens=sizing.batch_tokens,
    )


def _remedy(facts: Facts, sizing: Sizing, room: Room) -> str:
    """The largest context that would fit, or else how much memory is missing."""
    for slots in (sizing.slots, max(1, room.workers)):
        context = sizing.context_tokens
        while context > 512:
            context //= 2
            wish = Wish(slots=slots, context_tokens=context, workers=room.workers)
            try:
                choose_sizing(facts.header, facts.file_bytes, wish, free_bytes=room.memory_bytes)
            except OperationFailed:
                continue
            return f"{slots} slots of {context} tokens would fit"
    missing = _need(facts.header, facts.file_bytes, sizing).total_bytes - room.memory_bytes
    return f"{missing / 1e6:.0f} MB of memory are missing; take a smaller model or a coarser quantization"


def _choices(facts: Facts, sizing: Sizing, room: Room) -> list[Choice]:
    """From fine to coarse, the file at hand in its place among them."""
    header = facts.header
    found = [(bits_of(header, facts.file_bytes), header.quantization, facts.file_bytes, "this file")]
    others = [q for q in QUANTIZATIONS if q.name != header.quantization]
    own = found[0][0]
    for one in others if header.parameters else []:
        caveat = one.caveat if one.bits < own else f"{one.caveat}; made from the original weights alone"
        found.append((one.bits, one.name, estimated_bytes(header, one), caveat))
    choices = []
    for _, name, size, caveat in sorted(found, key=lambda item: -item[0]):
        # What was estimated is judged by the same formula, with that file's own way of being loaded.
        named = _with_quantization(header, name)
        total = _need(named, size, sizing).total_bytes
        choices.append(
            Choice(
                name=name,
                file_bytes=size,
                total_bytes=total,
                fits=total <= room.memory_bytes,
                is_this_file=caveat == "this file",
                caveat=caveat,
            )
        )
    return choices


def _with_quantization(header: ModelHeader, name: str) -> ModelHeader:
    values = {field: getattr(header, field) for field in header.__struct_fields__}
    return ModelHeader(**{**values, "quantization": name})


def _disk(facts: Facts, sizing: Sizing, room: Room) -> Disk:
    header = facts.header
    heads, kv_heads = header.heads * header.head_dim, (header.kv_heads or header.heads) * header.head_dim
    rows = 4 * header.embedding_length + 2 * heads + 2 * kv_heads
    return Disk(
        file_bytes=facts.file_bytes,
        free_bytes=room.disk_bytes,
        fits=facts.file_bytes + KEPT_FREE_BYTES <= room.disk_bytes,
        checkpoint_bytes=header.parameters * TRAINED_BYTES,
        adapter_bytes=header.layers * LORA_RANK * rows * 2,
        answers_bytes=1_000_000 * sizing.context_tokens * 4,
    )


def _match(
    one: Instance, facts: Facts, splits: list[tuple[Split, GpuNeed]], slo: Slo, prices: Prices | None
) -> Match | None:
    """The smallest even split that this instance holds; None when it holds none."""
    usable = int(one.gpu.memory_gb * 1e9 * GPU_USED_RATIO)
    fitting = [
        (split, need) for split, need in splits if split.gpus <= one.gpus and need.total_bytes <= usable
    ]
    if not fitting:
        return None
    split, need = fitting[0]
    # Stages of a pipeline work one after the other, shards of a tensor at once.
    read_s = need.weights_bytes * split.pipeline / (one.gpu.bandwidth_gb_per_s * 1e9)
    least = None if facts.header.experts else read_s
    bounds = [bound for bound in (slo.tpot_s, slo.ttft_s) if bound is not None]
    return Match(
        cloud=one.cloud,
        instance=one.name,
        gpu=one.gpu.name,
        gpus=one.gpus,
        link=one.link,
        cpus=one.cpus,
        tensor=split.tensor,
        pipeline=split.pipeline,
        per_gpu_bytes=need.total_bytes,
        usable_bytes=usable,
        replicas=one.gpus // split.gpus,
        least_tpot_s=least,
        meets_slo=least is None or all(least <= bound for bound in bounds),
        micro_usd_per_hour=prices.micro_usd_per_hour(one.name) if prices else None,
    )


def _cheapest(match: Match) -> tuple[bool, bool, int, int, int]:
    """By price where there is one, else the least hardware first."""
    price = match.micro_usd_per_hour
    size = match.gpus * match.usable_bytes
    return (not match.meets_slo, price is None, price or 0, size, match.cpus)


def _notes(facts: Facts, slo: Slo) -> list[str]:
    notes = []
    if facts.is_approximate:
        notes.append("the catalogue's sizes are rounded: pull the model for exact figures")
    if facts.format == "safetensors":
        notes.append("safetensors are for engines on GPUs; llama.cpp here loads GGUF")
    if facts.header.experts:
        notes.append(
            "a mixture of experts reads a part of its weights for a token: no bound on time is given"
        )
    if slo.ttft_s is not None or slo.tpot_s is not None:
        notes.append(
            "an objective rules out what cannot meet it; whether the rest does under load, "
            "`pilothouse simulate` says with a measured speed"
        )
    return notes
