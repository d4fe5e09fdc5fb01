"""
A download server with moods, over TLS on loopback, for tests of downloads.

Everything that it does wrong is asked for by the test; everything that it was
asked is kept in `requests`.
"""

import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "files.example"
"""The name that the certificate holds; a test resolves it to loopback."""


class FileServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.statuses: list[int] = []
        """Statuses to answer first, before it behaves."""
        self.cuts: list[int] = []
        """After how many bytes of the body to cut each of the next answers."""
        self.ranges = True
        self.chunked = False
        self.headers: dict[str, str] = {}
        self.wrong_range = False
        self.token = ""
        """When set, requests without it as their bearer token are refused with `denial`."""
        self.denial: tuple[int, dict[str, str]] = (401, {})
        self.requests: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.server_address[1]}"

    def handle_error(self, *_arguments: object) -> None:
        """A client that hangs up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            status, headers = server.denial
            self._empty(status, **headers)
        elif server.statuses:
            self._empty(server.statuses.pop(0))
        elif self.path in server.redirects:
            self._empty(302, Location=server.redirects[self.path])
        elif self.path not in server.files:
            self._empty(404)
        else:
            self._file(server.files[self.path])

    def _empty(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, content: bytes) -> None:
        server = self.server
        etag = server.etags.get(self.path, "")
        begin = self._range_begin(etag)
        if begin is not None and begin >= len(content):
            self._empty(416)
            return
        self.send_response(200 if begin is None else 206)
        rest = content[begin or 0 :]
        if etag:
            self.send_header("ETag", etag)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if begin is not None:
            shown = begin + 1 if server.wrong_range else begin
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self._body(rest)

    def _range_begin(self, etag: str) -> int | None:
        asked = self.headers.get("Range")
        if not asked or not self.server.ranges or self.headers.get("If-Range", etag) != etag:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _body(self, rest: bytes) -> None:
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        sent = rest if cut is None else rest[:cut]
        if self.server.chunked:
            self.wfile.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n" if sent else b"")
            if cut is None:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(sent)
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_arguments: object) -> None:
        """Silent."""


@contextmanager
def serve_files(folder: Path) -> Iterator[tuple[FileServer, ssl.SSLContext]]:
    """A running server, and the TLS settings of a client that trusts it."""
    certificate = folder / "server.pem"
    if not certificate.exists():  # two servers on one folder are trusted alike
        _certificate(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = FileServer()
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the certificate is its own authority
    try:
        yield server, trusting
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def lookup_loopback(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(HOST), x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path
