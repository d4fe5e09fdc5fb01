"""
A small catalogue of models better than the demonstration model, for `model suggest`.

Compiled by hand on the date below from public model pages; it is not fetched,
ranked or kept up to date, and newer models may be better. Sizes are approximate.
A licence named here is where to look, not legal advice: read it before use.
"""

from msgspec import Struct

COMPILED_ON = "2026-11-22"

MEMORY_PER_BYTE = 1.25
MEMORY_BASE_BYTES = 768 * 1024 * 1024
"""Weights, a context of 4096 tokens and the engine's buffers, estimated on the safe side from the file's size
alone. What a deployment really needs is computed from the header when it starts."""
KEPT_FREE_RATIO = 0.1
"""Share of the disk's free space that stays free."""


class CatalogueModel(Struct, frozen=True, kw_only=True):
    name: str
    repository: str
    """On the hub, `owner/name`."""
    file: str
    parameters: int
    quantization: str
    bytes: int
    context_tokens: int
    licence: str
    use: str = "chat"
    """`chat` or `embeddings`"""

    @property
    def source(self) -> str:
        """What `model pull` takes."""
        return f"hf:{self.repository}/{self.file}"

    @property
    def memory_bytes(self) -> int:
        return int(self.bytes * MEMORY_PER_BYTE) + MEMORY_BASE_BYTES


class Suggestion(Struct, frozen=True, kw_only=True):
    model: CatalogueModel
    fits: bool
    reason: str
    """Why it does not fit; empty when it does."""


def suggest(memory_available_bytes: int, disk_free_bytes: int) -> list[Suggestion]:
    """
    All models of the catalogue: those that fit, largest first; then the others, smallest first.

    Args:
        memory_available_bytes: Memory that the engine may take now.
        disk_free_bytes: Free space where models are stored.
    """
    judged = [_judge(model, memory_available_bytes, disk_free_bytes) for model in CATALOGUE]
    return sorted(judged, key=lambda one: (not one.fits, -one.model.bytes if one.fits else one.model.bytes))


def _judge(model: CatalogueModel, memory_bytes: int, disk_bytes: int) -> Suggestion:
    reasons = []
    if model.memory_bytes > memory_bytes:
        reasons.append(f"needs about {_gb(model.memory_bytes)} of memory, {_gb(memory_bytes)} are available")
    if model.bytes > disk_bytes * (1 - KEPT_FREE_RATIO):
        reasons.append(f"takes {_gb(model.bytes)} on the disk, {_gb(disk_bytes)} are free")
    return Suggestion(model=model, fits=not reasons, reason="; ".join(reasons))


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"


CATALOGUE = (
    CatalogueModel(
        name="llama-3.2-1b",
        repository="bartowski/Llama-3.2-1B-Instruct-GGUF",
        file="Llama-3.2-1B-Instruct-Q4_K_M.gguf",
        parameters=1_240_000_000,
        quantization="Q4_K_M",
        bytes=808_000_000,
        context_tokens=131_072,
        licence="Llama 3.2 Community License (not open source)",
    ),
    CatalogueModel(
        name="gemma-3-1b",
        repository="ggml-org/gemma-3-1b-it-GGUF",
        file="gemma-3-1b-it-Q4_K_M.gguf",
        parameters=1_000_000_000,
        quantization="Q4_K_M",
        bytes=806_000_000,
        context_tokens=32_768,
        licence="Gemma Terms of Use (not open source)",
    ),
    CatalogueModel(
        name="qwen3-0.6b",
        repository="Qwen/Qwen3-0.6B-GGUF",
        file="Qwen3-0.6B-Q8_0.gguf",
        parameters=600_000_000,
        quantization="Q8_0",
        bytes=639_000_000,
        context_tokens=32_768,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="smollm2-1.7b",
        repository="HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF",
        file="smollm2-1.7b-instruct-q4_k_m.gguf",
        parameters=1_710_000_000,
        quantization="Q4_K_M",
        bytes=1_056_000_000,
        context_tokens=8192,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="qwen3-1.7b",
        repository="Qwen/Qwen3-1.7B-GGUF",
        file="Qwen3-1.7B-Q8_0.gguf",
        parameters=1_720_000_000,
        quantization="Q8_0",
        bytes=1_834_000_000,
        context_tokens=32_768,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="llama-3.2-3b",
        repository="bartowski/Llama-3.2-3B-Instruct-GGUF",
        file="Llama-3.2-3B-Instruct-Q4_K_M.gguf",
        parameters=3_210_000_000,
        quantization="Q4_K_M",
        bytes=2_019_000_000,
        context_tokens=131_072,
        licence="Llama 3.2 Community License (not open source)",
    ),
    CatalogueModel(
        name="gemma-3-4b",
        repository="ggml-org/gemma-3-4b-it-GGUF",
        file="gemma-3-4b-it-Q4_K_M.gguf",
        parameters=3_880_000_000,
        quantization="Q4_K_M",
        bytes=2_490_000_000,
        context_tokens=131_072,
        licence="Gemma Terms of Use (not open source)",
    ),
    CatalogueModel(
        name="phi-4-mini",
        repository="unsloth/Phi-4-mini-instruct-GGUF",
        file="Phi-4-mini-instruct-Q4_K_M.gguf",
        parameters=3_840_000_000,
        quantization="Q4_K_M",
        bytes=2_492_000_000,
        context_tokens=131_072,
        licence="MIT",
    ),
    CatalogueModel(
        name="qwen3-4b",
        repository="Qwen/Qwen3-4B-GGUF",
        file="Qwen3-4B-Q4_K_M.gguf",
        parameters=4_020_000_000,
        quantization="Q4_K_M",
        bytes=2_497_000_000,
        context_tokens=32_768,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="mistral-7b",
        repository="bartowski/Mistral-7B-Instruct-v0.3-GGUF",
        file="Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        parameters=7_250_000_000,
        quantization="Q4_K_M",
        bytes=4_373_000_000,
        context_tokens=32_768,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="qwen3-8b",
        repository="Qwen/Qwen3-8B-GGUF",
        file="Qwen3-8B-Q4_K_M.gguf",
        parameters=8_190_000_000,
        quantization="Q4_K_M",
        bytes=5_028_000_000,
        context_tokens=32_768,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="qwen3.5-9b",
        repository="unsloth/Qwen3.5-9B-GGUF",
        file="Qwen3.5-9B-Q4_K_M.gguf",
        parameters=9_000_000_000,
        quantization="Q4_K_M",
        bytes=5_681_000_000,
        context_tokens=262_144,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="qwen3-14b",
        repository="Qwen/Qwen3-14B-GGUF",
        file="Qwen3-14B-Q4_K_M.gguf",
        parameters=14_800_000_000,
        quantization="Q4_K_M",
        bytes=9_002_000_000,
        context_tokens=32_768,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="gpt-oss-20b",
        repository="lmstudio-community/gpt-oss-20b-GGUF",
        file="gpt-oss-20b-MXFP4.gguf",
        parameters=20_900_000_000,
        quantization="MXFP4",
        bytes=12_110_000_000,
        context_tokens=131_072,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="mistral-small-24b",
        repository="bartowski/Mistral-Small-24B-Instruct-2501-GGUF",
        file="Mistral-Small-24B-Instruct-2501-Q4_K_M.gguf",
        parameters=23_600_000_000,
        quantization="Q4_K_M",
        bytes=14_334_000_000,
        context_tokens=32_768,
        licence="Apache-2.0",
    ),
    CatalogueModel(
        name="qwen3-embedding-0.6b",
        repository="Qwen/Qwen3-Embedding-0.6B-GGUF",
        file="Qwen3-Embedding-0.6B-Q8_0.gguf",
        parameters=600_000_000,
        quantization="Q8_0",
        bytes=639_000_000,
        context_tokens=32_768,
        licence="Apache-2.0",
        use="embeddings",
    ),
)
