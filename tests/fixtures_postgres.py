"""
A real PostgreSQL, started by the tests in a folder of its own; installed by them where they may.

Its user needs a password, so that each test also shows that the password gets
there. A socket in a private folder, no port, nothing synced: what a test kills
is the server, never the machine.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from pilothouse.kit.lockfile import file_lock

USER, PASSWORD = "pilot", "Planted-Secret-7ef3"
INSTALL = "apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold postgresql"
INSTALL_S = 600.0


def _binaries() -> Path | None:
    """The newest PostgreSQL of this machine."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr/pgsql").glob("*/bin")]
    if found := shutil.which("initdb"):
        places.append(Path(found).resolve().parent)
    usable = [place for place in places if (place / "initdb").exists() and (place / "postgres").exists()]
    return max(usable, key=lambda place: (len(place.parent.name), place.parent.name), default=None)


def _installed() -> Path:
    """Where it is; installed by one process, while others wait."""
    with file_lock(Path(tempfile.gettempdir()) / f"pilothouse-apt-{os.geteuid()}.lock", timeout_s=INSTALL_S):
        return _binaries() or _install()


def _install() -> Path:
    """Install it where that is allowed; else skip, with the reason."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip(f"PostgreSQL is not installed, and installing it needs root and apt: {INSTALL}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Its package would start a server of the machine's own; this keeps it from doing so.
    config = Path("/etc/postgresql-common/createcluster.conf")
    if not config.exists():
        config.parent.mkdir(exist_ok=True)
        config.write_text("create_main_cluster = false\n")
    for command in ("apt-get update", INSTALL):
        done = subprocess.run(
            command.split(), env=quiet, capture_output=True, text=True, check=False, timeout=INSTALL_S / 2
        )
    if (found := _binaries()) is None:
        pytest.skip(f"PostgreSQL cannot be installed here: {done.stderr.strip()[-200:]}")
    return found


class PostgresServer:
    """One server of the tests. `url` names no password; that is in `password_file`."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._account: dict[str, object] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            name = next(name for name in ("postgres", "nobody") if _exists(name))
            found = pwd.getpwnam(name)
            os.chown(self.folder, found.pw_uid, found.pw_gid)
            self._account = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
        self.folder.chmod(0o755)
        self.password_file = self.folder / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self._run("initdb", "-D", str(self.data), "-U", USER, "-A", "scram-sha-256", "-E", "UTF8",
                  "--locale=C", "--no-sync", f"--pwfile={self.password_file}")  # fmt: skip

    def start(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "max_connections": "20",
            "shared_buffers": "16MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.data), *options],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self._account,
            )  # fmt: skip
        ends = time.monotonic() + 30
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()[-1000:]
                assert time.monotonic() < ends, "PostgreSQL did not start"
                time.sleep(0.05)

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(self.url(database), password=PASSWORD, autocommit=True)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with self.connect(database) as connection:
            for statement in statements:
                cursor = connection.execute(statement)  # type: ignore[arg-type]  # a test's own text
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """All of its processes at once, as a crash does."""
        assert self._process is not None
        family = psutil.Process(self._process.pid).children(recursive=True)
        for process in (self._process, *family):
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self._process.wait(timeout=10)
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        """Fast shutdown: sessions are told and cut."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)

    def dump(self, database: str) -> str:
        """The schema as PostgreSQL's own tool writes it."""
        return self._run("pg_dump", "--schema-only", "--no-owner", self.url(database))

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            capture_output=True, text=True, check=False, timeout=120, cwd=self.folder,
            env={**os.environ, "PGPASSWORD": PASSWORD}, **self._account,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests that leave it running."""
    server = PostgresServer(_installed())
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may kill."""
    server = PostgresServer(_installed())
    server.start()
    yield server
    server.remove()


@pytest.fixture
def make_database(postgres: PostgresServer) -> Callable[[], str]:
    """Makes an empty database on the shared server and returns its name."""
    made: list[str] = []

    def make() -> str:
        name = f"test_{os.getpid()}_{time.monotonic_ns()}"
        postgres.execute(f"CREATE DATABASE {name}")
        made.append(name)
        return name

    yield make
    for name in made:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
