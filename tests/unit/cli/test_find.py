"""Which server a command talks to, and whether it gets the local admin key."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.app.home import HomeLock, write_private
from pilothouse.cli.find import find_server
from pilothouse.domain.errors import InvalidApiKey, InvalidRequest, ServerUnreachable

URL = "http://127.0.0.1:8420"
STATE = b'{"url":"http://127.0.0.1:8420","version":"0","started_at":1.0,"pids":{"supervisor":7}}'


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PILOTHOUSE_URL", raising=False)
    monkeypatch.delenv("PILOTHOUSE_API_KEY", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[str]:
    """A home in which a server runs, for all that can be seen."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "home-keys").mkdir()
    (tmp_path / "home-keys" / "admin.key").write_text("ph_local\n")
    write_private(home / "server.json", STATE)
    lock = HomeLock(home)
    lock.acquire()
    yield str(home)
    lock.release()


def test_the_local_server_gets_the_local_key(home: str) -> None:
    server = find_server(home=home)

    assert (server.url, server.api_key) == (URL, "ph_local")


def test_the_local_server_gets_it_under_its_own_address_too(home: str) -> None:
    assert find_server(home=home, url=URL + "/").api_key == "ph_local"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8421", "http://localhost:8420", "https://example.org"])
def test_nobody_else_gets_the_local_key(home: str, url: str) -> None:
    with pytest.raises(InvalidApiKey, match="no key for"):
        find_server(home=home, url=url)


def test_options_come_before_the_environment(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_URL", "http://a:1")
    monkeypatch.setenv("PILOTHOUSE_API_KEY", "ph_a")

    assert find_server(home=home).url == "http://a:1"
    assert find_server(home=home, url="http://b:1", api_key="ph_b").api_key == "ph_b"


def test_without_a_server_the_fix_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachable, match="fix: pilothouse up"):
        find_server(home=str(tmp_path))


def test_a_missing_key_file_is_named(home: str, tmp_path: Path) -> None:
    (tmp_path / "home-keys" / "admin.key").unlink()

    with pytest.raises(InvalidApiKey, match=r"cannot read the admin key .*admin.key"):
        find_server(home=home)


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8420", "http://", "http://x:port", "http://[::1"])
def test_an_address_that_is_none_is_told(home: str, url: str) -> None:
    with pytest.raises(InvalidRequest, match="is not an address"):
        find_server(home=home, url=url, api_key="k")
