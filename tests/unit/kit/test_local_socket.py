import socket

import pytest

from pilothouse.kit.local_socket import answers, listen_privately


def test_the_socket_and_its_folder_are_ours_alone(tmp_path):
    path = tmp_path / "run" / "a.sock"

    with listen_privately(path):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_what_a_dead_process_left_is_replaced(tmp_path):
    listen_privately(tmp_path / "a.sock").close()
    assert not answers(tmp_path / "a.sock")

    with listen_privately(tmp_path / "a.sock") as listener:
        listener.listen()
        assert answers(tmp_path / "a.sock")


def test_one_that_answers_is_left_alone(tmp_path):
    with listen_privately(tmp_path / "a.sock") as listener:
        listener.listen()

        with pytest.raises(FileExistsError, match="somebody answers"):
            listen_privately(tmp_path / "a.sock")
        assert answers(tmp_path / "a.sock")


def test_a_full_queue_still_counts_as_an_answer(tmp_path, monkeypatch):
    def never(self: socket.socket, address: str) -> None:
        raise TimeoutError

    class Busy(socket.socket):
        connect = never  # type: ignore[assignment]

    monkeypatch.setattr(socket, "socket", Busy)

    assert answers(tmp_path / "a.sock")
