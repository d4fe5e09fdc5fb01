"""
The process that turns a sentence-transformers model into GGUF.

    python -m pilothouse.app.convert_model FOLDER TARGET NAME

Belongs here: the weights and the file that is written; what is read beside them is
`sentence_bert`'s. The one idea: the same input gives the same bytes, so
that the digest of a converted model can be recorded like any other.

Source: the layout that llama.cpp loads for architecture `bert`, and its WordPiece
vocabulary, where U+2581 marks the beginning of a word as `##` marks the rest.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np

from pilothouse.app.sentence_bert import SPECIAL_TOKENS, BertConfig, read_folder
from pilothouse.domain.errors import ModelFileRefused
from pilothouse.kit import safetensors
from pilothouse.kit.bounded import REFUSED_STATUS, limit_self
from pilothouse.kit.safetensors import SafetensorsError, Span

Array = np.ndarray[Any, Any]

CPU_S = 600
MAX_WEIGHTS_BYTES = 4 * 1024**3
_WORD_START = "\u2581"

_OUTER = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_POOLING = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS}
_KEPT_F32 = ("position_embd", "token_types", "token_embd_norm", "attn_output_norm", "layer_output_norm")
"""Small, or sums over many terms: rounding them would cost accuracy and save nothing."""


def main(arguments: list[str]) -> int:
    folder, target, name = Path(arguments[0]), Path(arguments[1]), arguments[2]
    try:
        size = _weights_bytes(folder)
        # The interpreter and NumPy map about 1 GB; the weights stand in memory once as read, once as F16.
        limit_self(memory_bytes=2 * 1024**3 + 3 * size, cpu_s=CPU_S, file_bytes=2 * size + 64 * 1024**2)
        convert(folder, target, name=name)
    except (ModelFileRefused, SafetensorsError) as exc:
        sys.stderr.write(f"{exc}\n")
        return REFUSED_STATUS
    return 0


def convert(folder: Path, target: Path, *, name: str) -> None:
    """
    Write `target` from the model in `folder`.

    Raises:
        ModelFileRefused: Another kind of model, or one whose parts do not fit together.
        SafetensorsError: The weights' header lies.
    """
    model = read_folder(folder)
    config = model.config
    spans = safetensors.read(folder / "model.safetensors")
    writer = gguf.GGUFWriter(target, "bert")
    _write_facts(writer, config, _POOLING[model.pooling], name)
    _write_vocabulary(writer, model.tokens, config.type_vocab_size)
    for tensor_name, array in _tensors(folder / "model.safetensors", spans, config):
        writer.add_tensor(tensor_name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights_bytes(folder: Path) -> int:
    size = (folder / "model.safetensors").stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise ModelFileRefused(f"the weights have {size} bytes; at most {MAX_WEIGHTS_BYTES} are converted")
    return size


def _write_facts(writer: gguf.GGUFWriter, config: BertConfig, pooling: gguf.PoolingType, name: str) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)


def _write_vocabulary(writer: gguf.GGUFWriter, tokens: list[str], token_types: int) -> None:
    kinds = [
        gguf.TokenType.CONTROL if token in SPECIAL_TOKENS.values() else gguf.TokenType.NORMAL
        for token in tokens
    ]
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(token_types)
    writer.add_token_list([_llama_token(token) for token in tokens])
    writer.add_token_types(kinds)
    for role, token in SPECIAL_TOKENS.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", tokens.index(token))


def _llama_token(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else _WORD_START + token


def _tensors(path: Path, spans: dict[str, Span], config: BertConfig) -> Iterator[tuple[str, Array]]:
    """All tensors in a fixed order, matrices as F16."""
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in spans else ""
    names = dict(_OUTER)
    for layer in range(config.num_hidden_layers):
        names |= {f"encoder.layer.{layer}.{old}": f"blk.{layer}.{new}" for old, new in _LAYER.items()}
    with path.open("rb") as file:
        for old, new in names.items():
            kinds = ("weight",) if old.endswith("_embeddings") else ("weight", "bias")
            for kind in kinds:
                array = _load(
                    file, spans, f"{prefix}{old}.{kind}", _shape(new.rpartition(".")[2], kind, config)
                )
                keeps = kind == "bias" or new.endswith(_KEPT_F32)
                yield f"{new}.{kind}", array if keeps else _half(array, old)


def _shape(name: str, kind: str, config: BertConfig) -> tuple[int, ...]:
    hidden, inner = config.hidden_size, config.intermediate_size
    if kind == "bias":
        return (inner,) if name == "ffn_up" else (hidden,)
    matrices = {
        "token_embd": (config.vocab_size, hidden),
        "position_embd": (config.max_position_embeddings, hidden),
        "token_types": (config.type_vocab_size, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }
    return (hidden,) if name.endswith("_norm") else matrices.get(name, (hidden, hidden))


def _load(file: BinaryIO, spans: dict[str, Span], name: str, shape: tuple[int, ...]) -> Array:
    """
    Read one tensor as F32.

    Returns:
        Shape as asked.
    """
    span = spans.get(name)
    if span is None or span.shape != shape or span.dtype not in {"F32", "F16", "BF16"}:
        found = f"{span.dtype} of shape {span.shape}" if span else "missing"
        raise ModelFileRefused(f"the tensor {name} is {found}; floating point of shape {shape} is needed")
    file.seek(span.offset)
    raw = file.read(span.bytes)
    if span.dtype == "BF16":
        array = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        array = np.frombuffer(raw, "<f4" if span.dtype == "F32" else "<f2").astype(np.float32)
    if not np.isfinite(array).all():
        raise ModelFileRefused(f"the tensor {name} holds infinities or what is not a number")
    return array.reshape(shape)


def _half(array: Array, name: str) -> Array:
    if float(np.abs(array).max()) > np.finfo(np.float16).max:
        raise ModelFileRefused(f"the tensor {name} holds numbers too large for F16")
    return array.astype(np.float16)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
