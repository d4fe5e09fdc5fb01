import threading

from control_fakes import TickingClock
from pilothouse.control.gpus import STALE_S, GpuReadings
from pilothouse.kit.nvml import Gpu

GPU = Gpu(index=0, name="g", memory_total_bytes=1)


class Library:
    """Answers when it is let; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Event()

    def read(self) -> tuple[Gpu, ...]:
        self.asked += 1
        assert self.may_answer.wait(10)
        return (GPU,)


def test_a_driver_that_hangs_holds_one_thread_and_is_asked_once():
    library = Library()
    gpus = GpuReadings(TickingClock(), open_library=lambda: library)  # type: ignore[arg-type,return-value]

    thread = gpus.look()

    assert thread is not None
    assert gpus.look() is None
    assert gpus.last == ()
    library.may_answer.set()
    thread.join(10)
    assert gpus.last == (GPU,)
    assert library.asked == 1


def test_an_old_reading_says_nothing_about_now():
    clock, library = TickingClock(), Library()
    library.may_answer.set()
    gpus = GpuReadings(clock, open_library=lambda: library)  # type: ignore[arg-type,return-value]
    thread = gpus.look()
    assert thread is not None
    thread.join(10)

    clock.time += STALE_S + 1

    assert gpus.last == ()


def test_without_a_gpu_nothing_is_asked_again():
    gpus = GpuReadings(TickingClock(), open_library=lambda: None)
    thread = gpus.look()
    assert thread is not None
    thread.join(10)

    assert gpus.look() is None
