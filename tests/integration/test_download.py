"""Downloads from a server with moods, on loopback over TLS."""

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from file_server import HOST, FileServer, lookup_loopback, serve_files
from pilothouse.adapters.sources import _download
from pilothouse.adapters.sources._connection import Network
from pilothouse.adapters.sources._download import ATTEMPTS, Declined, Downloader, Wanted
from pilothouse.domain.errors import ModelFileRefused, NotFound, OperationFailed

CONTENT = bytes(range(256)) * 4000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def quiet(_what: str, _done: int, _total: int) -> None:
    """No progress shown."""


class Bench:
    """A server and a downloader that reaches it."""

    def __init__(self, server: FileServer, tls: ssl.SSLContext, folder: Path) -> None:
        self.server = server
        self.tls = tls
        self.target = folder / "file.bin"
        self.part = folder / "file.bin.part"
        self.sleeps: list[float] = []
        server.files["/file.bin"] = CONTENT

    def downloader(self, **changes: object) -> Downloader:
        network = Network(allow_private=True, tls=self.tls, lookup=lookup_loopback, timeout_s=5)
        options = {"sleep": self.sleeps.append, **changes}
        return Downloader(network, **options)  # type: ignore[arg-type]

    def fetch(
        self, path: str = "/file.bin", *, expect: str = "", downloader: Downloader | None = None
    ) -> str:
        wanted = Wanted(url=self.server.url + path, what="the file", expect=expect)
        return (downloader or self.downloader()).fetch(wanted, self.target, quiet)

    def asked_ranges(self) -> list[str | None]:
        return [headers.get("range") for _path, headers in self.server.requests]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    tls_folder, work = tmp_path / "tls", tmp_path / "work"
    tls_folder.mkdir()
    work.mkdir()
    with serve_files(tls_folder) as (server, tls):
        yield Bench(server, tls, work)


def test_a_file_is_downloaded_whole(bench: Bench) -> None:
    assert bench.fetch() == DIGEST
    assert bench.target.read_bytes() == CONTENT
    assert [path.name for path in bench.target.parent.iterdir()] == ["file.bin"]


def test_no_credential_and_no_cookie_is_sent(bench: Bench) -> None:
    bench.fetch()

    [(_path, headers)] = bench.server.requests
    assert set(headers) == {"host", "accept-encoding", "user-agent"}


@pytest.mark.parametrize("expect", ["", DIGEST])
def test_a_cut_download_continues_where_the_halves_are_proven(bench: Bench, expect: str) -> None:
    bench.server.cuts = [300_000, 200_000]
    bench.server.etags["/file.bin"] = '"one"' if not expect else ""

    assert bench.fetch(expect=expect) == DIGEST
    assert bench.asked_ranges() == [None, "bytes=300000-", "bytes=500000-"]


def test_a_cut_download_without_proof_starts_anew(bench: Bench) -> None:
    bench.server.cuts = [300_000]

    assert bench.fetch() == DIGEST
    assert bench.asked_ranges() == [None, None]


def test_a_server_that_always_cuts_is_given_up(bench: Bench) -> None:
    bench.server.cuts = [200_000, 300_000] * 50

    with pytest.raises(OperationFailed, match="times in a row"):
        bench.fetch()

    assert len(bench.server.requests) == 1 + ATTEMPTS


def test_a_weak_etag_proves_nothing(bench: Bench) -> None:
    bench.server.cuts = [300_000]
    bench.server.etags["/file.bin"] = 'W/"one"'

    assert bench.fetch() == DIGEST
    assert bench.asked_ranges() == [None, None]


def test_a_later_run_continues_an_earlier_one(bench: Bench) -> None:
    bench.server.etags["/file.bin"] = '"one"'

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done > 300_000:
            raise KeyboardInterrupt

    wanted = Wanted(url=f"{bench.server.url}/file.bin", what="the file")
    with pytest.raises(KeyboardInterrupt):
        bench.downloader().fetch(wanted, bench.target, interrupt)
    have = bench.part.stat().st_size

    assert bench.fetch() == DIGEST
    assert bench.asked_ranges()[-1] == f"bytes={have}-"


def test_a_file_that_changed_in_between_is_downloaded_anew(bench: Bench) -> None:
    bench.server.etags["/file.bin"] = '"two"'
    bench.part.write_bytes(b"x" * 300_000)
    bench.part.with_name("file.bin.part.json").write_text('{"etag": "\\"one\\""}')

    assert bench.fetch() == DIGEST


def test_a_server_that_knows_no_ranges_starts_anew(bench: Bench) -> None:
    bench.server.ranges = False
    bench.server.cuts = [300_000]

    assert bench.fetch(expect=DIGEST) == DIGEST
    assert bench.asked_ranges() == [None, "bytes=300000-"]


def test_another_range_than_asked_is_not_believed(bench: Bench) -> None:
    bench.server.cuts = [300_000]
    bench.server.wrong_range = True

    assert bench.fetch(expect=DIGEST) == DIGEST
    assert bench.asked_ranges() == [None, "bytes=300000-", None]


def test_a_damaged_first_half_is_downloaded_once_more(bench: Bench) -> None:
    bench.part.write_bytes(b"x" * 300_000)

    assert bench.fetch(expect=DIGEST) == DIGEST
    assert bench.asked_ranges() == ["bytes=300000-", None]


def test_a_partial_file_longer_than_the_file_is_dropped(bench: Bench) -> None:
    bench.part.write_bytes(b"x" * (len(CONTENT) + 1))

    assert bench.fetch(expect=DIGEST) == DIGEST


def test_another_file_than_expected_is_refused_and_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(ModelFileRefused, match="another file"):
        bench.fetch(expect="sha256:" + "0" * 64)

    assert list(bench.target.parent.iterdir()) == []


def test_a_chunked_answer_that_is_cut_is_noticed(bench: Bench) -> None:
    bench.server.chunked = True
    bench.server.cuts = [300_000]

    assert bench.fetch() == DIGEST
    assert len(bench.server.requests) == 2


def test_a_busy_server_is_asked_again_with_growing_pauses(bench: Bench) -> None:
    bench.server.statuses = [503, 429, 500]

    assert bench.fetch() == DIGEST
    assert len(bench.sleeps) == 3
    assert bench.sleeps == sorted(bench.sleeps)


def test_a_server_that_stays_broken_is_given_up_with_what_is_here_kept(bench: Bench) -> None:
    bench.server.etags["/file.bin"] = '"one"'
    bench.server.cuts = [300_000]

    def break_now(delay_s: float) -> None:
        bench.sleeps.append(delay_s)
        bench.server.statuses = [503]

    with pytest.raises(OperationFailed, match="from the 300000 bytes"):
        bench.fetch(downloader=bench.downloader(sleep=break_now))

    assert len(bench.sleeps) == ATTEMPTS - 1
    assert bench.part.stat().st_size == 300_000


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_login_says_so(bench: Bench, status: int) -> None:
    bench.server.statuses = [status]

    with pytest.raises(Declined, match="login"):
        bench.fetch()


def test_a_missing_file_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.fetch("/absent")


def test_a_compressed_answer_is_refused(bench: Bench) -> None:
    bench.server.headers["Content-Encoding"] = "gzip"

    with pytest.raises(OperationFailed, match="compressed"):
        bench.fetch()


def test_five_redirects_are_followed_and_six_are_not(bench: Bench) -> None:
    for hop in range(6):
        bench.server.redirects[f"/{hop}"] = f"/{hop + 1}"
    bench.server.files["/6"] = CONTENT

    assert bench.fetch("/1") == DIGEST
    with pytest.raises(OperationFailed, match="redirected"):
        bench.fetch("/0")


@pytest.mark.parametrize(
    "target",
    [
        "http://files.example/file.bin",
        "https://169.254.169.254/latest",
        "https://user:secret@files.example/",
        "file:///etc/passwd",
        "https://2130706433/",
        "https://metadata.google.internal/",
    ],
)
def test_each_redirect_is_checked(bench: Bench, target: str) -> None:
    bench.server.redirects["/go"] = target

    with pytest.raises(OperationFailed, match="not connected"):
        bench.fetch("/go")


def test_a_redirect_inside_is_refused_where_private_is_not_allowed(bench: Bench) -> None:
    answers = {HOST: "93.184.216.34"}
    network = Network(tls=bench.tls, lookup=lambda host, _port: [answers.get(host, "10.0.0.7")], timeout_s=5)
    wanted = Wanted(url="https://inside.example/file.bin", what="the file")

    with pytest.raises(Declined, match="private"):
        Downloader(network, sleep=bench.sleeps.append).fetch(wanted, bench.target, quiet)

    assert bench.sleeps == []


def test_an_untrusted_certificate_is_refused_with_the_way_out(bench: Bench) -> None:
    bench.tls = ssl.create_default_context()

    with pytest.raises(OperationFailed, match="SSL_CERT_FILE"):
        bench.fetch()


def test_a_certificate_of_another_name_is_refused(bench: Bench) -> None:
    wanted = Wanted(url=bench.server.url.replace(HOST, "other.example"), what="the file")

    with pytest.raises(OperationFailed, match="certificate"):
        bench.downloader().fetch(wanted, bench.target, quiet)


def test_a_full_disk_is_said_before_the_download_with_the_arithmetic(bench: Bench) -> None:
    with pytest.raises(OperationFailed, match=r"needs 1 MB, and 268 MB stay free .* has 100 MB"):
        bench.fetch(downloader=bench.downloader(free=lambda _folder: 100_000_000))


def test_a_disk_that_fills_up_meanwhile_gives_the_partial_file_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, chunk: bytes) -> int:
        raise OSError(28, "No space left on device")

    class Full:
        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_exc: object) -> None: ...

        write = full

    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: Full() if self == bench.part else real(self, *a, **k)
    )

    with pytest.raises(OperationFailed, match="disk became full"):
        bench.fetch()

    monkeypatch.undo()
    assert not bench.part.exists()


def test_a_file_over_the_limit_is_refused(bench: Bench) -> None:
    with pytest.raises(ModelFileRefused, match="at most 1000"):
        bench.fetch(downloader=bench.downloader(max_bytes=1000))

    bench.server.chunked = True
    with pytest.raises(ModelFileRefused, match="larger than 1000"):
        bench.fetch(downloader=bench.downloader(max_bytes=1000))


def test_a_bad_beginning_ends_the_download_at_once(bench: Bench) -> None:
    def refuse(head: bytes) -> None:
        assert head == CONTENT[: len(head)]
        raise ModelFileRefused("a bad beginning")

    wanted = Wanted(url=f"{bench.server.url}/file.bin", what="the file", check_head=refuse)
    with pytest.raises(ModelFileRefused):
        bench.downloader().fetch(wanted, bench.target, quiet)

    assert bench.part.stat().st_size == 0


def test_an_exchange_that_crawls_counts_as_cut(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "SLOWEST_BYTES", 10 * len(CONTENT))
    time_s = iter(range(0, 10**9, 61))

    with pytest.raises(OperationFailed, match=r"only \d+ bytes came in 60 s"):
        bench.fetch(downloader=bench.downloader(monotonic=lambda: next(time_s)), expect="")


def test_the_way_leads_through_the_proxy_where_one_is_set(bench: Bench) -> None:
    with _proxy(bench.server.server_address[1]) as proxy:
        network = Network(
            allow_private=True,
            tls=bench.tls,
            proxy_for=lambda _host: f"http://me:it%20is@127.0.0.1:{proxy.port}",
            timeout_s=5,
        )
        wanted = Wanted(url=f"{bench.server.url}/file.bin", what="the file")

        assert Downloader(network).fetch(wanted, bench.target, quiet) == DIGEST

    assert proxy.asked.startswith(f"CONNECT {HOST}:{bench.server.server_address[1]} HTTP/1.")
    assert "Proxy-Authorization: Basic bWU6aXQgaXM=" in proxy.asked
    assert all("authorization" not in name for _path, headers in bench.server.requests for name in headers)


class _Proxy:
    """A proxy for one tunnel."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(5)
        self.port = self._listener.getsockname()[1]
        self.asked = ""
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "_Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._thread.join(timeout=10)
        self._listener.close()

    def _serve(self) -> None:
        client, _address = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._target), timeout=5) as server:
            client.settimeout(5)
            while "\r\n\r\n" not in self.asked:
                self.asked += client.recv(4096).decode()
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join(timeout=10)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


_proxy = _Proxy
