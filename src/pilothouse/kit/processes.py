"""
Processes that outlive whoever started them: made, recognised, ended for certain.

Belongs here: the mechanisms (identity, groups, signals, exit statuses). Does
not: what the processes are for. The one idea: a pid alone names nobody, for
numbers come back. An `Identity` is the pid together with its birth, and every
function here acts on exactly that process, or not at all.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from msgspec import Struct

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_OOM_SCORE = 500
"""Raised, so that a kernel out of memory ends what can be started again before what starts it."""


class Identity(Struct, frozen=True):
    """One process, never a later one with the same number."""

    pid: int
    birth: str
    """On Linux the boot and the clock ticks since then, which no change of the clock moves."""


class _Facts(Struct, frozen=True):
    birth: str
    is_zombie: bool


def spawn(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Path) -> Identity:
    """
    Start a process that outlives this one: its own session and group, nothing inherited.

    `env` is its whole environment, `output` gets what it prints (appended), its
    files are its own (umask 077). Blocks until the program runs.

    Raises:
        OSError: The program cannot be run.
    """
    fd = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            close_fds=True,
            start_new_session=True,
            umask=0o077,
        )
    finally:
        os.close(fd)
    # From here on `reap` alone waits for it: an object that waits too would take
    # its exit status away, and warn of a child left running, which is the point.
    child.returncode = 0
    _volunteer_for_oom(child.pid)
    facts = _facts(child.pid)  # there even when it ended at once, for nobody took its status yet
    return Identity(child.pid, facts.birth if facts else "")


def identify(pid: int) -> Identity | None:
    """Who has that number now; None when nobody living has. A zombie does not live."""
    facts = _facts(pid)
    return None if facts is None or facts.is_zombie else Identity(pid, facts.birth)


def is_alive(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def started_at(identity: Identity) -> float:
    """Unix seconds of its birth; 0.0 when it is gone."""
    try:
        return psutil.Process(identity.pid).create_time()
    except psutil.Error:
        return 0.0


def resident_bytes(identity: Identity) -> int:
    """Memory that it holds now; 0 when it is gone."""
    try:
        return int(psutil.Process(identity.pid).memory_info().rss) if is_alive(identity) else 0
    except psutil.Error:
        return 0


def group_members(leader: Identity) -> list[Identity]:
    """
    Living processes of the group that `leader` was made the head of, itself included.

    A group's number is not given to a new process as long as the group has
    members, so whoever is in it belongs to it, even when its leader is long gone.
    """
    facts = _facts(leader.pid)
    if facts is not None and facts.birth != leader.birth:
        return []  # the number is somebody else's now, so our group had ended
    members = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) != leader.pid:
                continue
        except OSError:  # it ended meanwhile
            continue
        if found := identify(pid):
            members.append(found)
    return members


def leads_group(identity: Identity) -> bool:
    """Whether it lives and is the head of a group of its own, as `spawn` makes it."""
    try:
        return os.getpgid(identity.pid) == identity.pid and is_alive(identity)
    except OSError:
        return False


def leader_of(identity: Identity) -> Identity | None:
    """
    The head of the group and session that it is in, as `spawn` makes them; None where that is gone.

    A group inside somebody else's session, such as a command at a terminal, has none.
    """
    try:
        group = os.getpgid(identity.pid)
        if os.getsid(identity.pid) != group or not is_alive(identity):
            return None
    except OSError:
        return None
    return identify(group)


def terminate(identity: Identity) -> None:
    """Ask this one process to end."""
    _send(identity, signal.SIGTERM)


def kill_group(leader: Identity) -> None:
    """KILL the process and, where it leads a group, all that it started in that, at one stroke."""
    if leads_group(leader) or group_members(leader):
        try:
            os.killpg(leader.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    else:
        _send(leader, signal.SIGKILL)


def reap(pid: int) -> int | None:
    """
    The exit status of a child of ours that ended (negative: the signal), once.

    None when it runs on, or is not our child: somebody started it before us, and
    the system told its status to them or to nobody.
    """
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if found else None


def find(words: Sequence[str]) -> list[Identity]:
    """Living processes of this user whose command line holds these words in a row."""
    wanted = list(words)
    commands = _commands_from_proc() if sys.platform == "linux" else _commands_from_psutil()
    found = []
    for pid, argv in commands:
        if any(argv[i : i + len(wanted)] == wanted for i in range(1, len(argv) - len(wanted) + 1)):
            identity = identify(pid)
            if identity is not None:
                found.append(identity)
    return found


def describe_exit(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    hint = "; the system does that when memory runs out" if -status == signal.SIGKILL else ""
    return f"it was ended by signal {-status} ({name}){hint}"


def _facts(pid: int) -> _Facts | None:
    if pid <= 0:
        return None
    return _facts_from_proc(pid) if sys.platform == "linux" else _facts_from_psutil(pid)


def _facts_from_proc(pid: int) -> _Facts | None:
    """Source: proc_pid_stat(5). The name in parentheses may hold anything, so count from its end."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        return None
    # Its first thread may be a zombie while others still end: then nobody can have its status yet.
    is_zombie = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return _Facts(f"{boot}:{fields[19].decode()}", is_zombie)


def _facts_from_psutil(pid: int) -> _Facts | None:
    try:
        process = psutil.Process(pid)
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return _Facts(f"{process.create_time():.6f}", is_zombie)
    except psutil.Error:
        return None


def _commands_from_proc() -> Iterator[tuple[int, list[str]]]:
    """What psutil tells too, in a third of its time: a start waits for this."""
    for entry in os.scandir(_PROC):
        if entry.name.isdecimal():
            try:
                if entry.stat().st_uid == os.getuid():
                    command = (_PROC / entry.name / "cmdline").read_bytes()
                    yield int(entry.name), os.fsdecode(command).split("\0")
            except OSError:  # it ended meanwhile
                continue


def _commands_from_psutil() -> Iterator[tuple[int, list[str]]]:
    for process in psutil.process_iter(["pid", "cmdline", "uids"]):
        argv, uids = process.info["cmdline"], process.info["uids"]
        if argv and uids is not None and uids.real == os.getuid():
            yield process.info["pid"], argv


def _volunteer_for_oom(pid: int) -> None:
    try:
        (_PROC / str(pid) / "oom_score_adj").write_text(str(_OOM_SCORE))
    except OSError:  # not Linux, or it ended already
        pass


def _send(identity: Identity, number: signal.Signals) -> None:
    """Signal this process and no later one with its number."""
    try:
        if not hasattr(os, "pidfd_open"):
            if is_alive(identity):
                os.kill(identity.pid, number)
            return
        fd = os.pidfd_open(identity.pid)
        try:
            if is_alive(identity):  # asked while the descriptor holds it: the signal cannot meet another
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)
    except ProcessLookupError:  # it ended by itself
        pass
