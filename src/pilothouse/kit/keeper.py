"""
Runs a program whose output is kept: `python -I -S keeper.py --replica N --home-id H --log PATH -- ARGV`.

The process that was started becomes the program (pid, birth, group and exit status
are the program's own), and a child of it reads what the program prints into two
files of bounded size, until nobody writes any more. The child's command line goes
on naming the replica, by which its group is found again.

A file of its own, run by its path, with the standard library alone: it has to be
there within milliseconds, in any interpreter, wherever Pilothouse is installed.
"""

import os
import signal
import sys

MAX_BYTES = 1024 * 1024
"""Of one file; there are two, as `kit.ringlog` reads them."""
READ_BYTES = 64 * 1024
CANNOT_RUN_STATUS = 127


def main(words: list[str]) -> None:
    cut = words.index("--")
    path, argv = words[words.index("--log") + 1], words[cut + 1 :]
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        keep(reading, path)
        os._exit(0)
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(argv[0], argv)  # noqa: S606 - no shell, and that is the point
    except OSError as exc:
        os.write(2, f"pilothouse: {argv[0]} cannot be run: {exc.strerror}\n".encode())
        os._exit(CANNOT_RUN_STATUS)


def keep(reading: int, path: str, *, max_bytes: int = MAX_BYTES) -> None:
    """Move what comes into `path`, and before that into `<path>.1`, until all writers are gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a stop is the program's: its last words are still to be read
    for inherited in (0, 1, 2):
        os.close(inherited)
    file = open_log(path)
    while data := os.read(reading, READ_BYTES):
        try:
            os.write(file, data)
            if os.fstat(file).st_size >= max_bytes:
                os.replace(path, path + ".1")  # noqa: PTH105 - pathlib costs half of the start
                os.close(file)
                file = open_log(path)
        except OSError:  # a full disk, a folder that is gone: the program must not wait for its log
            continue


def open_log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


if __name__ == "__main__":
    main(sys.argv[1:])
