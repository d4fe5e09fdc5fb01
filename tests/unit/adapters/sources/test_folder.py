"""The folder of a model is copied whole, and refused whole where anything in it can carry code."""

import pickle
from pathlib import Path

import pytest

from pilothouse.adapters.sources.file import FileSource
from pilothouse.domain.errors import ModelFileRefused
from pilothouse.ports.source import Fetched
from pilothouse.testing.model_folders import make_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "tiny")


def fetch(folder: Path) -> Fetched:
    work = folder.parent / "work"
    work.mkdir(exist_ok=True)
    return FileSource().fetch(str(folder), work, progress=lambda *_: None, expect=None)


def test_a_folder_is_copied_with_all_its_files(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "notes.txt").write_text("x")

    fetched = fetch(folder)

    assert fetched.manifest is not None
    names = [file.path for file in fetched.manifest.files]
    assert names == ["config.json", "model.safetensors", "sub/notes.txt", "tokenizer.json"]
    assert all((fetched.path / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_the_same_content_has_the_same_digest_and_another_has_not(folder: Path) -> None:
    first, again = fetch(folder).source_digest, fetch(folder).source_digest
    (folder / "tokenizer.json").write_text("[]")

    assert first == again != fetch(folder).source_digest


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "a.pth", "a.pkl", "a.ckpt", "sub/a.npy"])
def test_what_may_hold_a_pickle_is_refused_with_the_reason(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"harmless")

    with pytest.raises(
        ModelFileRefused, match=rf"{name} is a Python pickle or may hold one, which runs code"
    ):
        fetch(folder)


def test_a_pickle_under_another_name_is_refused(folder: Path) -> None:
    (folder / "vocab.txt").write_bytes(pickle.dumps({"a": 1}, protocol=4))

    with pytest.raises(ModelFileRefused, match=r"vocab.txt is a Python pickle"):
        fetch(folder)


@pytest.mark.parametrize("name", ["modeling_tiny.py", "ext.so", "run.sh"])
def test_code_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("print('x')")

    with pytest.raises(ModelFileRefused, match=rf"{name} is code, and a model's own code is never run"):
        fetch(folder)


def test_a_configuration_that_names_code_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "tiny", auto_map={"AutoModel": "other--repo.Model"})

    with pytest.raises(ModelFileRefused, match="auto_map: the model wants code of its own"):
        fetch(folder)


def test_code_deep_in_a_configuration_is_found(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "tiny", text_config={"inner": [{"auto_map": {}}]})

    with pytest.raises(ModelFileRefused, match="auto_map"):
        fetch(folder)


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret.json"])
def test_a_link_that_leads_out_is_refused(folder: Path, target: str) -> None:
    (folder.parent / "secret.json").write_text("{}")
    (folder / "generation_config.json").symlink_to(target)

    with pytest.raises(
        ModelFileRefused, match=r"generation_config.json is a link that leads out of the folder"
    ):
        fetch(folder)


def test_a_link_to_a_folder_is_refused(folder: Path) -> None:
    (folder / "more").symlink_to("/etc")

    with pytest.raises(ModelFileRefused, match="more is a link to a folder"):
        fetch(folder)


def test_a_link_within_the_folder_is_its_file(folder: Path) -> None:
    (folder / "other.json").symlink_to("tokenizer.json")

    assert not (fetch(folder).path / "other.json").is_symlink()


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ([], "holds no weights"),
        (["pytorch_model.bin"], "a Python pickle or may hold one.*convert it to safetensors"),
        (["model.onnx", "model.safetensors"], "weights as safetensors and as onnx"),
    ],
)
def test_weights_of_one_format_are_needed(folder: Path, names: list[str], fault: str) -> None:
    (folder / "model.safetensors").unlink()
    for name in names:
        (folder / name).write_bytes(b"x")

    with pytest.raises(ModelFileRefused, match=fault):
        fetch(folder)


def test_a_file_that_nobody_knows_is_refused_and_notes_of_tools_are_left_behind(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "hook.py").write_text("x")
    (folder / ".gitattributes").write_text("x")
    fetched = fetch(folder)
    (folder / "weights.xyz").write_text("x")

    assert fetched.manifest is not None
    assert not [file for file in fetched.manifest.files if ".git" in file.path]
    with pytest.raises(ModelFileRefused, match=r"weights.xyz is none that belongs to a model"):
        fetch(folder)
