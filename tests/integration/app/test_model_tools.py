"""Readers and converters in their real processes."""

import json
from pathlib import Path

import numpy as np
import pytest

from pilothouse.app import model_tools
from pilothouse.app.model_tools import build_models, convert_folder, inspect_file
from pilothouse.config import make_settings
from pilothouse.domain.errors import ModelFileRefused, OperationFailed
from pilothouse.kit.bounded import ChildFailed, run_module
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.digest import digest_of, open_regular
from pilothouse.testing.gguf_files import Raw, TensorClaim, make_gguf

TINY = make_gguf()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_a_header_is_read_in_another_process(tmp_path: Path) -> None:
    assert inspect_file(written(tmp_path, TINY)).architecture == "llama"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x80\x04}\x94.", "pickle"),
        (TINY[:100], "truncated"),
        (TINY[:-1], "truncated or lies"),
        (TINY[:8] + b"\xff" * 16 + TINY[24:], "tensors; at most"),
        (make_gguf({"a": Raw(9, b"\x08\0\0\0" + b"\xff" * 8)}), "at most"),
        (make_gguf({"general.type": "adapter"}), "LoRA"),
        (make_gguf(None, (TensorClaim(offset=1 << 60),)), "truncated or lies"),
    ],
)
def test_a_file_that_lies_is_refused_in_words(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileRefused, match=words):
        inspect_file(written(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileRefused, match="No such file"):
        inspect_file(tmp_path / "absent.gguf")


def test_an_hour_long_header_is_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_tools, "INSPECT_TIMEOUT_S", 0.01)

    with pytest.raises(ModelFileRefused, match="process that read its header failed"):
        inspect_file(written(tmp_path, TINY))


def test_the_largest_header_that_is_read_stays_within_the_bounds(tmp_path: Path) -> None:
    texts = 4 << 20
    path = tmp_path / "model.gguf"
    path.write_bytes(make_gguf({"a": Raw(9, b"\x08\0\0\0" + texts.to_bytes(8, "little") + bytes(8 * texts))}))

    with pytest.raises(ModelFileRefused, match=r"general\.architecture"):
        inspect_file(path)


def test_the_processor_time_of_a_child_is_bounded() -> None:
    limits = "limit_self(memory_bytes=1 << 32, cpu_s=1, file_bytes=0)"
    statements = (f"from pilothouse.kit.bounded import limit_self; {limits}", "while True: pass")

    with pytest.raises(ChildFailed, match=r"signal (9|24)"):
        run_module("timeit", "-n", "1", "-r", "1", *statements, timeout_s=60)


HIDDEN, INNER, TOKENS = 8, 16, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "\u2028"]
CONFIG = {
    "model_type": "bert",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "max_position_embeddings": 4,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": len(TOKENS),
}


class Bert:
    """A sentence-transformers model as small as can be, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "1_Pooling").mkdir()
        self.write("config.json", CONFIG)
        self.write("1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
        (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
        self.tensors = _tensors()
        self.save()

    def write(self, name: str, content: object) -> None:
        (self.folder / name).write_text(json.dumps(content))

    def save(self) -> None:
        entries, data = {}, b""
        for name, array in self.tensors.items():
            raw = array.tobytes()
            kind = {"float32": "F32", "float16": "F16", "int64": "I64"}[array.dtype.name]
            entries[name] = {
                "dtype": kind,
                "shape": array.shape,
                "data_offsets": [len(data), len(data) + len(raw)],
            }
            data += raw
        header = json.dumps(entries).encode()
        (self.folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)


def _tensors() -> dict[str, np.ndarray]:
    seeded = np.random.default_rng(7)
    shapes = {
        "embeddings.position_ids": (1, 4),
        "embeddings.word_embeddings.weight": (len(TOKENS), HIDDEN),
        "embeddings.position_embeddings.weight": (4, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }
    matrices = {
        "attention.self.query": (HIDDEN, HIDDEN),
        "attention.self.key": (HIDDEN, HIDDEN),
        "attention.self.value": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "attention.output.LayerNorm": (HIDDEN,),
        "intermediate.dense": (INNER, HIDDEN),
        "output.dense": (HIDDEN, INNER),
        "output.LayerNorm": (HIDDEN,),
    }
    for name, shape in matrices.items():
        shapes[f"encoder.layer.0.{name}.weight"] = shape
        shapes[f"encoder.layer.0.{name}.bias"] = (shape[0],)
    made = {name: seeded.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["embeddings.position_ids"] = np.arange(4, dtype=np.int64).reshape(1, 4)
    return made


@pytest.fixture
def bert(tmp_path: Path) -> Bert:
    return Bert(tmp_path / "bert")


def test_a_sentence_transformer_becomes_gguf(bert: Bert, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"

    convert_folder(bert.folder, target, "tiny")

    header = inspect_file(target)
    assert (header.architecture, header.pooling, header.quantization) == ("bert", "mean", "F16")
    assert (header.embedding_length, header.layers, header.heads, header.tokens) == (8, 1, 2, len(TOKENS))


def test_the_same_model_becomes_the_same_bytes(bert: Bert, tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        convert_folder(bert.folder, tmp_path / name, "tiny")
        with open_regular(tmp_path / name) as file:
            digests.add(digest_of(file))

    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", {**CONFIG, "model_type": "roberta"}, "roberta"),
        ("config.json", {**CONFIG, "hidden_act": "relu"}, "relu"),
        ("config.json", {**CONFIG, "num_attention_heads": 0}, "below 1"),
        ("config.json", {"model_type": "bert"}, "not that of a BERT encoder"),
        ("config.json", {**CONFIG, "vocab_size": 9}, r"vocab\.txt has 8 tokens"),
        ("config.json", {**CONFIG, "hidden_size": 9}, "is F32 of shape"),
        ("config.json", {**CONFIG, "num_hidden_layers": 2}, "is missing"),
        ("tokenizer_config.json", {"do_lower_case": False}, "upper case"),
        ("tokenizer_config.json", {"strip_accents": False}, "accents"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by"),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "Dense"),
    ],
)
def test_a_model_that_llama_cpp_would_compute_differently_is_refused(
    bert: Bert, name: str, content: object, words: str, tmp_path: Path
) -> None:
    bert.write(name, content)

    with pytest.raises(ModelFileRefused, match=words):
        convert_folder(bert.folder, tmp_path / "out.gguf", "tiny")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "not a number"), (np.inf, "infinities"), (1e6, "too large for F16")]
)
def test_numbers_that_cannot_be_kept_are_refused(
    bert: Bert, value: float, words: str, tmp_path: Path
) -> None:
    bert.tensors["embeddings.word_embeddings.weight"][3, 3] = value
    bert.save()

    with pytest.raises(ModelFileRefused, match=words):
        convert_folder(bert.folder, tmp_path / "out.gguf", "tiny")


def test_a_truncated_file_of_weights_is_refused(bert: Bert, tmp_path: Path) -> None:
    path = bert.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ModelFileRefused, match="truncated"):
        convert_folder(bert.folder, tmp_path / "out.gguf", "tiny")


def test_a_conversion_that_does_not_fit_the_disk_is_not_begun(
    bert: Bert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = model_tools.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(model_tools.shutil, "disk_usage", lambda _path: usage)

    with pytest.raises(OperationFailed, match="stay free"):
        convert_folder(bert.folder, tmp_path / "out.gguf", "tiny")


def test_a_file_is_pulled_and_loaded_with_all_real_parts(tmp_path: Path) -> None:
    source = tmp_path / "Tiny-Model.gguf"
    source.write_bytes(TINY)
    models = build_models(make_settings(home=str(tmp_path / "home")), SystemClock())

    version = models.pull(f"file:{source}", name=None, licence="", progress=lambda *_: None, known=None)

    assert (version.name, version.licence) == ("tiny-model", "apache-2.0")
    assert Path(models.load(version).path).read_bytes() == TINY
    Path(models.load(version).path).chmod(0o600)
    Path(models.load(version).path).write_bytes(TINY + b"x")
    with pytest.raises(ModelFileRefused, match="changed on the disk"):
        models.load(version)
