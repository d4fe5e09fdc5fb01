import subprocess
import sys

import pytest

from pilothouse.app import compiled


def test_other_sources_have_another_build(tmp_path, monkeypatch):
    for layer in compiled.LAYERS:
        (tmp_path / layer).mkdir()
    source = tmp_path / "gateway" / "pipeline.py"
    source.write_text("a = 1")
    monkeypatch.setattr(compiled, "PACKAGE", tmp_path)
    before = compiled.default_folder()

    source.write_text("a = 2")

    assert compiled.default_folder() != before


def test_without_a_build_nothing_changes(tmp_path):
    before = list(sys.meta_path)

    assert not compiled.prefer(tmp_path / "absent")
    assert sys.meta_path == before


def test_compiled_modules_are_never_mixed_with_interpreted_ones(tmp_path):
    import pilothouse.kit.ids  # noqa: F401 - interpreted, and there

    made = tmp_path / "pilothouse" / "kit" / f"ids{compiled.EXTENSION_SUFFIXES[0]}"
    made.parent.mkdir(parents=True)
    made.touch()

    with pytest.raises(RuntimeError, match=r"pilothouse\.kit\.ids: imported before"):
        compiled.prefer(tmp_path)


def test_a_worker_imports_none_of_them_before_it_asks_for_them():
    early = "import sys, pilothouse.app.worker; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", early], capture_output=True, text=True, check=True)

    compiled_ones = {f"pilothouse.{name}" for name in compiled.MODULES}
    assert compiled_ones & set(done.stdout.split()) == set()


def test_every_module_that_is_compiled_is_there_and_defines_no_struct():
    for name in compiled.MODULES:
        source = (compiled.PACKAGE / f"{name.replace('.', '/')}.py").read_text()
        assert "(Struct" not in source, name
