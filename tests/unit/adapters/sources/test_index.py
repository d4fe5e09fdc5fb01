"""How the package clients are asked, and that their secrets stay theirs."""

import time
from pathlib import Path

import pytest

from pilothouse.adapters.sources import _index
from pilothouse.adapters.sources._index import ClientMissing, Located, Pin, Pip, Uv, clients
from pilothouse.domain.errors import NotFound, OperationFailed

PIN = Pin("tiny", "1.0")
REPORT = """{"install": [{"download_info": {"url": "https://files.example/tiny-1.0-py3-none-any.whl",
 "archive_info": {"hashes": {"sha256": "AB12"}}}}]}"""
LOCK = """
[[packages]]
name = "tiny"
wheels = [
  { url = "https://files.example/tiny-1.0-cp311-cp311-linux_x86_64.whl", hashes = { sha256 = "1" } },
  { url = "https://files.example/tiny-1.0-py3-none-any.whl", hashes = { sha256 = "2" } },
]
"""


def patient() -> None:
    """Waits as long as it takes."""


class Stub:
    """A program that says what the test wants, and remembers its arguments."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "uv"
        self.arguments = folder / "arguments"

    def says(self, out: str = "", *, err: str = "", status: int = 0, also: str = "") -> "Stub":
        for name, text in (("out", out), ("err", err)):
            self.path.with_name(name).write_text(text)
        folder = self.path.parent
        self.path.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {self.arguments}\n{also}\n'
            f"cat {folder}/out; cat {folder}/err >&2; exit {status}\n"
        )
        self.path.chmod(0o755)
        return self


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    return Stub(tmp_path)


def test_pip_says_where_the_wheel_is_without_installing_it(stub: Stub) -> None:
    found = Pip(stub.says(REPORT).path).locate(PIN, patient)

    assert found == Located("https://files.example/tiny-1.0-py3-none-any.whl", "sha256:ab12")
    arguments = stub.arguments.read_text().split()
    assert arguments[:3] == ["-m", "pip", "install"]
    assert {"--dry-run", "--no-deps", "--only-binary", ":all:", "--no-input"} <= set(arguments)
    assert arguments[-2:] == ["--", "tiny==1.0"]


def test_pip_downloads_one_wheel_without_dependencies(stub: Stub, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    program = stub.says(also=f"touch {folder}/tiny-1.0-py3-none-any.whl")

    assert Pip(program.path).download(PIN, folder, patient).name == "tiny-1.0-py3-none-any.whl"
    assert {"download", "--no-deps"} <= set(stub.arguments.read_text().split())


def test_pip_that_leaves_no_wheel_is_an_error(stub: Stub, tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="0 wheels"):
        Pip(stub.says().path).download(PIN, tmp_path, patient)


def test_uv_says_where_the_wheel_for_any_machine_is(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(stub.path.parent), prepend=":")
    stub.says(LOCK)

    assert Uv().locate(PIN, patient) == Located("https://files.example/tiny-1.0-py3-none-any.whl", "sha256:2")


def test_uv_names_the_way_out_where_it_cannot_download(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="ensurepip"):
        Uv().download(PIN, tmp_path, patient)


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: No matching distribution found for tiny==1.0",
        "Because tiny was not found in the package registry, ...",
        "Because there is no version of tiny==1.0 ...",
    ],
)
def test_an_absent_wheel_is_not_found(stub: Stub, said: str) -> None:
    with pytest.raises(NotFound, match=r"tiny==1\.0"):
        Pip(stub.says(err=said, status=1).path).locate(PIN, patient)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "WARNING: after connection broken by 'NewConnectionError('x: [Errno 111] Connection refused')'\n"
            "ERROR: No matching distribution found for tiny==1.0",
            r"reached: \[Errno 111\] Connection refused\. Check",
        ),
        (
            "error: Request failed\n cause: Failed to fetch: https://index.example/tiny/\n cause: dns error",
            "Request failed|dns error",
        ),
        ("ERROR: HTTP error 401 while getting https://index.example/tiny.whl", "HTTP error 401"),
    ],
)
def test_an_index_that_cannot_be_reached_is_not_an_absent_wheel(stub: Stub, said: str, shown: str) -> None:
    with pytest.raises(OperationFailed, match=shown) as caught:
        Pip(stub.says(err=said, status=1).path).locate(PIN, patient)

    assert "cannot be reached" in str(caught.value)
    assert "index.example" not in str(caught.value)


def test_a_failure_is_told_without_any_address(stub: Stub) -> None:
    said = "WARNING: x\nERROR: cannot reach https://me:secret@index.example/simple/tiny now\nmore\n"

    with pytest.raises(OperationFailed) as caught:
        Pip(stub.says(err=said, status=1).path).locate(PIN, patient)

    assert "cannot reach <address> now" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "index.example" not in str(caught.value)


@pytest.mark.parametrize("out", ["", "{}", '{"install": []}', "not json"])
def test_an_answer_that_cannot_be_read_is_an_error(stub: Stub, out: str) -> None:
    with pytest.raises(OperationFailed, match="nothing that can be read"):
        Pip(stub.says(out).path).locate(PIN, patient)


def test_a_client_that_is_not_there_is_passed_over(stub: Stub, tmp_path: Path) -> None:
    with pytest.raises(ClientMissing):
        Pip(tmp_path / "no-python").locate(PIN, patient)
    with pytest.raises(ClientMissing):
        Pip(stub.says(err="/usr/bin/python: No module named pip", status=1).path).locate(PIN, patient)


def test_a_client_that_hangs_is_given_up(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "LOCATE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(_index, "POLL_S", 0.01)

    with pytest.raises(OperationFailed, match="did not answer within"):
        Pip(stub.says(also="exec sleep 5").path).locate(PIN, patient)


def test_who_waits_may_end_the_client(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "POLL_S", 0.02)

    def stop() -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Pip(stub.says(also="exec sleep 20").path).locate(PIN, stop)
    assert time.monotonic() - began < 10


def test_an_environment_without_pip_asks_that_of_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index.importlib.util, "find_spec", lambda _name: None)

    assert [type(client) for client in clients()] == [Pip, Uv]
