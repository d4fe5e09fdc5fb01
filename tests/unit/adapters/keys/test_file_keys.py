import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pilothouse.adapters.keys.file import FileKeys
from pilothouse.domain.errors import OperationFailed

KEY = bytes(range(32))


def test_the_first_start_makes_private_files_and_nothing_else(tmp_path):
    keys = FileKeys(tmp_path / "keys")

    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "keys").iterdir()}
    assert modes == {f"kek-{keys.current_id()}.key": 0o600, "pepper.key": 0o600, "subject.key": 0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_the_next_start_finds_the_same_keys(tmp_path):
    first = FileKeys(tmp_path)
    wrapped = first.wrap(KEY, context=b"c")

    second = FileKeys(tmp_path)

    assert second.unwrap(wrapped, context=b"c") == KEY
    assert (second.pepper(), second.subject_key()) == (first.pepper(), first.subject_key())
    assert len({first.pepper(), first.subject_key()}) == 2


@pytest.mark.parametrize("pattern", ["kek-*.key", "pepper.key", "subject.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_that_others_can_read_is_refused_with_the_fix(tmp_path, pattern, mode):
    FileKeys(tmp_path)
    (path,) = tmp_path.glob(pattern)
    path.chmod(mode)

    with pytest.raises(OperationFailed, match=f"chmod 600 {path}"):
        FileKeys(tmp_path).wrap(KEY, context=b"c")


def test_a_folder_that_others_can_enter_is_refused_with_the_fix(tmp_path):
    FileKeys(tmp_path)
    tmp_path.chmod(0o755)

    with pytest.raises(OperationFailed, match=f"chmod 700 {tmp_path}"):
        FileKeys(tmp_path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "é", "00" * 33])
def test_a_damaged_key_file_is_told_without_showing_it(tmp_path, text):
    FileKeys(tmp_path)
    (tmp_path / "pepper.key").write_text(text)

    with pytest.raises(OperationFailed, match=r"pepper\.key.*backup") as caught:
        FileKeys(tmp_path)
    assert not text or text not in str(caught.value).replace(str(tmp_path), "")


def test_a_lost_pepper_is_an_error_and_not_made_anew(tmp_path):
    FileKeys(tmp_path)
    (tmp_path / "pepper.key").unlink()

    with pytest.raises(OperationFailed, match="backup"):
        FileKeys(tmp_path)


def test_a_rotation_by_one_process_reaches_the_others(tmp_path):
    worker, controller = FileKeys(tmp_path), FileKeys(tmp_path)

    controller.retire(controller.current_id())

    assert worker.current_id() == controller.current_id()
    assert controller.unwrap(worker.wrap(KEY, context=b"c"), context=b"c") == KEY


def test_without_the_retired_file_its_wraps_do_not_open(tmp_path):
    keys = FileKeys(tmp_path)
    wrapped = keys.wrap(KEY, context=b"c")
    keys.retire(keys.current_id())
    next(iter(tmp_path.glob("*.retired"))).unlink()

    with pytest.raises(OperationFailed, match="not in"):
        FileKeys(tmp_path).unwrap(wrapped, context=b"c")


def test_a_key_id_in_an_envelope_never_becomes_a_path(tmp_path):
    (tmp_path / "kek-x.key").write_text("00" * 32)
    keys = FileKeys(tmp_path / "keys")
    forged = b"\x01\x07/../../x"[:9] + bytes(40)

    with pytest.raises(OperationFailed, match="not in"):
        keys.unwrap(forged, context=b"")


def test_many_first_starts_at_once_agree(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: FileKeys(tmp_path / "keys"), range(8)))

    assert len({k.pepper() for k in made}) == 1
    assert len({k.subject_key() for k in made}) == 1
    wrapped = [k.wrap(KEY, context=b"c") for k in made]
    assert all(k.unwrap(w, context=b"c") == KEY for k in made for w in wrapped)


def test_keys_load_no_database_code():
    code = (
        "import sys, pilothouse.adapters.keys.file; print(bool({'sqlalchemy', 'sqlite3'} & {*sys.modules}))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.strip() == "False"
