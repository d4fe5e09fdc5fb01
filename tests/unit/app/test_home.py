"""The home: folders, lock, state file, socket."""

import socket
import stat
from pathlib import Path

import pytest

from pilothouse.app.home import (
    HomeLock,
    Pids,
    ServerState,
    exposure_warning,
    is_locked,
    listen,
    prepare_folders,
    read_state,
    running_server,
    url_of,
    write_private,
)
from pilothouse.config import make_settings
from pilothouse.domain.errors import Conflict, OperationFailed

STATE = b'{"url":"http://127.0.0.1:1","version":"0","started_at":1.5,"pids":{"supervisor":7}}'


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_home_and_keys_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    settings = make_settings(home=str(tmp_path / "a"))
    settings.home_path.mkdir(mode=0o755)

    prepare_folders(settings)

    assert [mode(path) for path in (settings.home_path, settings.keys_path, settings.run_path)] == [0o700] * 3
    settings.run_path.rmdir()


@pytest.mark.parametrize("keys", ["a/keys", "."])
def test_keys_and_home_inside_each_other_are_refused(tmp_path: Path, keys: str) -> None:
    settings = make_settings(home=str(tmp_path / "a"), keys=str(tmp_path / keys))

    with pytest.raises(OperationFailed, match="inside each other"):
        prepare_folders(settings)


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OperationFailed, match=r"cannot use the folder .*file/home"):
        prepare_folders(make_settings(home=str(tmp_path / "file" / "home"), keys=str(tmp_path / "k")))


def test_a_home_may_be_a_link_to_a_bigger_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    settings = make_settings(home=str(tmp_path / "home"))

    prepare_folders(settings)

    assert mode(tmp_path / "disk") == 0o700
    settings.run_path.rmdir()


def test_the_lock_is_held_once_and_told_to_those_who_look(tmp_path: Path) -> None:
    first, second = HomeLock(tmp_path), HomeLock(tmp_path)

    assert not is_locked(tmp_path)
    first.acquire()
    write_private(tmp_path / "server.json", STATE)

    assert is_locked(tmp_path)
    with pytest.raises(Conflict, match=r"already runs at http://127.0.0.1:1 \(pid 7\)"):
        second.acquire()
    first.release()
    assert not is_locked(tmp_path)


def test_a_state_file_without_a_lock_is_of_a_killed_server(tmp_path: Path) -> None:
    write_private(tmp_path / "server.json", STATE)

    assert running_server(tmp_path) is None
    assert read_state(tmp_path / "server.json") == ServerState(
        url="http://127.0.0.1:1", version="0", started_at=1.5, pids=Pids(supervisor=7)
    )


def test_a_state_file_that_is_cut_is_none(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_bytes(STATE[:20])

    assert read_state(tmp_path / "server.json") is None


def test_a_private_file_replaces_the_old_one_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, b"new")

    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_free_port_is_picked_and_stands_in_the_url() -> None:
    with listen("127.0.0.1", 0) as listener:
        settings = make_settings(home="/h", host="127.0.0.1", port=0)

        assert url_of(settings, listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert exposure_warning(settings, listener) == ""


def test_an_address_of_all_networks_is_reached_by_loopback_and_warned_of() -> None:
    with listen("0.0.0.0", 0) as listener:
        settings = make_settings(home="/h", host="0.0.0.0")

        assert url_of(settings, listener).startswith("http://127.0.0.1:")
        assert "fix: " in exposure_warning(settings, listener)
        assert exposure_warning(make_settings(home="/h", tls_certificate="c", tls_key="k"), listener) == ""


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_has_brackets_in_the_url(host: str) -> None:
    try:
        listener = listen(host, 0)
    except OperationFailed:
        pytest.skip("this machine has no IPv6 loopback")
    with listener:
        assert url_of(make_settings(home="/h"), listener).startswith("http://[::1]:")


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(OperationFailed, match="cannot be resolved"):
        listen("no-such-host.invalid", 0)


def test_a_port_that_is_taken_is_named_with_the_fix() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(OperationFailed, match=r"is taken .* fix: "):
        listen("127.0.0.1", taken.getsockname()[1])
