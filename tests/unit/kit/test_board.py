"""Numbers that processes put up for each other."""

from pathlib import Path

from pilothouse.kit.board import FRESH_S, Board


class Watch:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def boards(path: Path, count: int, watch: Watch) -> list[Board]:
    return [Board(path, places=count, mine=n, monotonic=watch) for n in range(count)]


def test_each_sees_the_least_of_the_others(tmp_path):
    a, b, c = boards(tmp_path / "board", 3, Watch())

    a.write(1)
    b.write(7)
    c.write(5)

    assert [one.least_of_others() for one in (a, b, c)] == [5, 1, 1]


def test_nobody_else_is_nobody(tmp_path):
    a, _ = boards(tmp_path / "board", 2, Watch())
    a.write(3)

    assert a.least_of_others() is None


def test_who_no_longer_writes_is_not_counted(tmp_path):
    watch = Watch()
    a, b = boards(tmp_path / "board", 2, watch)
    b.write(0)
    watch.now += FRESH_S + 0.1

    assert a.least_of_others() is None
    b.write(0)
    assert a.least_of_others() == 0


def test_a_new_process_goes_on_with_the_board_that_is_there(tmp_path):
    watch = Watch()
    a, b = boards(tmp_path / "board", 2, watch)
    a.write(4)
    b.write(2)
    b.close()

    again = Board(tmp_path / "board", places=2, mine=1, monotonic=watch)
    again.write(9)

    assert a.least_of_others() == 9
    assert again.least_of_others() == 4
