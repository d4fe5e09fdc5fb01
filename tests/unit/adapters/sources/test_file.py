"""A file of this machine is copied, and tricks with it are refused."""

import os
from pathlib import Path

import pytest

from pilothouse.adapters.sources.file import FileSource
from pilothouse.domain.errors import ModelFileRefused, OperationFailed
from pilothouse.testing.gguf_files import make_gguf


def fetch(path: Path, folder: Path, **options: object) -> Path:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    source = FileSource(**options)  # type: ignore[arg-type]
    return source.fetch(str(path), work, progress=lambda *_: None, expect=None).path


def test_the_original_stays_as_it_is(tmp_path: Path) -> None:
    original = tmp_path / "a.gguf"
    original.write_bytes(make_gguf())
    original.chmod(0o644)

    copy = fetch(original, tmp_path)

    assert copy.stat().st_ino != original.stat().st_ino
    assert original.stat().st_mode & 0o777 == 0o644


def test_a_link_is_refused_with_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(make_gguf())
    link = tmp_path / "link.gguf"
    link.symlink_to(tmp_path / "a.gguf")

    with pytest.raises(ModelFileRefused, match=r"link to .*a\.gguf: name the file itself"):
        fetch(link, tmp_path)


def test_a_pipe_does_not_hold_the_pull(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")

    with pytest.raises(ModelFileRefused, match="not a regular file"):
        fetch(tmp_path / "pipe.gguf", tmp_path)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev"])
def test_devices_and_their_folder_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileRefused, match=r"not a regular file|is a link to a folder"):
        fetch(Path(path), tmp_path)


def test_a_secret_file_is_not_copied_nor_shown(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("ph_secret")

    with pytest.raises(ModelFileRefused) as caught:
        fetch(secret, tmp_path)

    assert "ph_secret" not in str(caught.value)
    assert not list((tmp_path / "work").iterdir())


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.gguf").write_bytes(make_gguf())

    assert fetch(Path("~/a.gguf"), tmp_path).read_bytes() == make_gguf()


def test_a_file_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(make_gguf())

    with pytest.raises(OperationFailed, match="stay free"):
        fetch(tmp_path / "a.gguf", tmp_path, free=lambda _folder: 0)
    assert not list((tmp_path / "work").iterdir())
