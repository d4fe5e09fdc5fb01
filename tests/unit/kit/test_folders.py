import pytest

from pilothouse.kit.folders import make_private


def test_a_folder_is_made_for_us_alone(tmp_path):
    assert make_private(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_an_open_folder_is_closed_to_others(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)

    assert make_private(tmp_path / "open").stat().st_mode & 0o777 == 0o700


def test_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PermissionError, match="is a link"):
        make_private(tmp_path / "link")
