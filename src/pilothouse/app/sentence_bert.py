"""
Reads what lies beside the weights of a sentence-transformers model.

Belongs here: its configuration and vocabulary, and which models llama.cpp would
compute just as the original does: BERT encoders with mean or CLS pooling and a
lower-case WordPiece vocabulary, the family of all-MiniLM. All others are refused.
"""

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import ModelFileRefused

Shape = TypeVar("Shape")

MAX_VOCABULARY_BYTES = 16 * 1024 * 1024
SPECIAL_TOKENS = {
    "bos": "[CLS]",
    "eos": "[SEP]",
    "unknown": "[UNK]",
    "seperator": "[SEP]",
    "padding": "[PAD]",
    "cls": "[CLS]",
    "mask": "[MASK]",
}
"""By their role in GGUF, spelled as there."""


class BertConfig(Struct, frozen=True):
    model_type: str
    hidden_size: int
    intermediate_size: int
    max_position_embeddings: int
    num_attention_heads: int
    num_hidden_layers: int
    vocab_size: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"


class PoolingConfig(Struct, frozen=True):
    pooling_mode_mean_tokens: bool = False
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False


class TokenizerConfig(Struct, frozen=True):
    do_lower_case: bool = True
    strip_accents: bool | None = None


class Module(Struct, frozen=True):
    type: str


class SentenceBert(Struct, frozen=True, kw_only=True):
    config: BertConfig
    pooling: str
    """`mean` or `cls`"""
    tokens: list[str]


def read_folder(folder: Path) -> SentenceBert:
    """
    Raises:
        ModelFileRefused: Another kind of model, or one whose parts do not fit together.
    """
    config = _read(folder / "config.json", BertConfig)
    _check(config, folder)
    tokens = _tokens(folder / "vocab.txt", config.vocab_size)
    return SentenceBert(config=config, pooling=_pooling(folder), tokens=tokens)


def _read(path: Path, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except FileNotFoundError as exc:
        raise ModelFileRefused(f"the model has no {path.name}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ModelFileRefused(f"{path.name} is not that of a BERT encoder: {exc}") from exc


def _pooling(folder: Path) -> str:
    modes = _read(folder / "1_Pooling" / "config.json", PoolingConfig)
    chosen = [name for name in PoolingConfig.__struct_fields__ if getattr(modes, name)]
    if chosen == ["pooling_mode_mean_tokens"]:
        return "mean"
    if chosen == ["pooling_mode_cls_token"]:
        return "cls"
    raise ModelFileRefused(f"the model pools by {chosen or 'nothing'}; mean and CLS pooling can be converted")


def _check(config: BertConfig, folder: Path) -> None:
    """Refuse whatever llama.cpp would compute differently."""
    if (
        config.model_type != "bert"
        or config.hidden_act != "gelu"
        or config.position_embedding_type != "absolute"
    ):
        raise ModelFileRefused(
            f"the model is {config.model_type} with {config.hidden_act} and {config.position_embedding_type} "
            f"positions; only bert with gelu and absolute positions can be converted"
        )
    if min(config.hidden_size, config.num_attention_heads, config.num_hidden_layers, config.vocab_size) < 1:
        raise ModelFileRefused("config.json holds a size below 1")
    tokenizer = folder / "tokenizer_config.json"
    case = _read(tokenizer, TokenizerConfig) if tokenizer.exists() else TokenizerConfig()
    if not case.do_lower_case or case.strip_accents is False:
        raise ModelFileRefused("the tokenizer keeps upper case or accents, which llama.cpp's WordPiece drops")
    modules = folder / "modules.json"
    kinds = (
        [module.type.rpartition(".")[2] for module in _read(modules, list[Module])]
        if modules.exists()
        else []
    )
    if unknown := sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"}):
        raise ModelFileRefused(
            f"the model has further modules ({', '.join(unknown)}), which cannot be converted"
        )


def _tokens(path: Path, count: int) -> list[str]:
    if not path.is_file() or path.stat().st_size > MAX_VOCABULARY_BYTES:
        raise ModelFileRefused("vocab.txt is missing or larger than any vocabulary")
    try:
        # Not splitlines(): a token may hold one of the rarer line separators of Unicode.
        tokens = path.read_bytes().decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as exc:
        raise ModelFileRefused(f"vocab.txt is not UTF-8: {exc}") from exc
    tokens = [token.removesuffix("\r") for token in tokens]
    if len(tokens) != count:
        raise ModelFileRefused(f"vocab.txt has {len(tokens)} tokens, but config.json says {count}")
    if missing := sorted(set(SPECIAL_TOKENS.values()) - set(tokens)):
        raise ModelFileRefused(f"vocab.txt has no {', '.join(missing)}")
    return tokens
