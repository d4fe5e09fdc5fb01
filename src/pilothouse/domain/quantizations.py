"""
The common quantizations of GGUF files: bits of a weight, and what is given up.

The words about quality are general knowledge of the field and no measurement of
your model: small models lose more than large ones, and only an evaluation on your
own questions tells. A file cannot be turned into a better one than it is.
"""

from msgspec import Struct

from pilothouse.domain.model import ModelHeader

_VOCABULARY_BITS = 6.5625
"""The table of words is kept at Q6_K where the rest is coarser: llama.cpp's own rule."""


class Quantization(Struct, frozen=True, kw_only=True):
    name: str
    bits: float
    """Of one weight, the scales of its block included (ggml's block sizes)."""
    caveat: str


QUANTIZATIONS = (
    Quantization(name="F16", bits=16.0, caveat="as trained, near enough"),
    Quantization(name="Q8_0", bits=8.5, caveat="a difference is rarely measurable"),
    Quantization(name="Q6_K", bits=6.5625, caveat="a difference is small"),
    Quantization(name="Q5_K_M", bits=5.7, caveat="a small loss; evaluate models under 3B"),
    Quantization(name="Q4_K_M", bits=4.85, caveat="the usual compromise; evaluate, above all small models"),
    Quantization(name="Q3_K_M", bits=3.9, caveat="a loss that people notice; evaluate first"),
    Quantization(name="Q2_K", bits=3.0, caveat="a heavy loss; a smaller model at Q4 is often better"),
)


def estimated_bytes(header: ModelHeader, quantization: Quantization) -> int:
    """
    Size of the model's file at another quantization, to some 10 %.

    The vocabulary's table counts once; models of few parameters and many words
    are the ones that this is coarse for.
    """
    words = min(header.tokens * header.embedding_length, header.parameters)
    bits = max(quantization.bits, _VOCABULARY_BITS) * words
    return int((bits + quantization.bits * (header.parameters - words)) / 8)


def bits_of(header: ModelHeader, file_bytes: int) -> float:
    """Bits a weight of the file at hand, from its size."""
    return file_bytes * 8 / header.parameters if header.parameters else 0.0
