"""
Compiled modules of the request path in the place of the interpreted ones.

The sources are plain Python and the truth. `make fast` compiles some of them with
mypyc into a folder that is named by the hash of all sources that the result
depends on: of other sources it is another folder, so a build is never stale. A
process that wants them says so before it imports any of them.
"""

import sys
import sysconfig
from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parents[1]
LAYERS = ("kit", "domain", "wire", "ports", "adapters", "gateway", "http")
"""Where the modules are, and all that they import of ours."""
GROUP = "pilothouse_compiled"
"""Name of the one library that holds them all."""
MODULES = (
    "adapters.caches.memory",
    "adapters.engines._asking",
    "adapters.engines._openai_text",
    "domain.answer_id",
    "domain.caching",
    "domain.chunk",
    "domain.entries",
    "domain.fairness",
    "domain.generate_request",
    "domain.ledger",
    "domain.principal",
    "domain.routing",
    "domain.used_tokens",
    "gateway.admit",
    "gateway.attempt",
    "gateway.authenticate",
    "gateway.call",
    "gateway.caller",
    "gateway.choose",
    "gateway.deliver",
    "gateway.flight",
    "gateway.generate",
    "gateway.keep",
    "gateway.limit",
    "gateway.meter",
    "gateway.permit",
    "gateway.pipeline",
    "gateway.place",
    "gateway.rate_headers",
    "gateway.recall",
    "gateway.route",
    "gateway.state",
    "gateway.waiting",
    "http.data_plane",
    "http.routes",
    "kit.cohort",
    "kit.fingerprint",
    "kit.http1.chunk",
    "kit.http1.client",
    "kit.http1.message",
    "kit.http1.peer",
    "kit.http1.reading",
    "kit.http1.responder",
    "kit.http1.same_head",
    "kit.http1.server",
    "kit.http1.sweep",
    "kit.ids",
    "kit.journal.frames",
    "kit.journal.writer",
    "kit.metrics",
    "kit.sse",
    "wire.openai.answers",
    "wire.openai.canonical",
    "wire.openai.completions",
    "wire.openai.conversation",
    "wire.openai.dialect",
    "wire.openai.inbound",
    "wire.openai.outbound",
    "wire.openai.same_event",
    "wire.openai.same_fields",
)
"""
What is compiled. No msgspec Struct may be defined in them, for mypyc drops the arguments of their class, and
no asynchronous generator, which it does not know. An attribute of several types or None gets its None in
`__init__`, for mypyc makes no default of it; the `__init__` of a dataclass is interpreted; and nothing is
awaited in an `except` or a `finally`, which would leave its error to all other tasks.
"""


def default_folder() -> Path:
    """Where the build of these sources for this interpreter is, if there is one."""
    return Path(sys.prefix) / "lib" / "pilothouse-compiled" / _digest()


def prefer(folder: Path) -> bool:
    """
    Import the compiled modules of that folder from now on; whether there are any.

    Raises:
        RuntimeError: One of them was imported already, and would be mixed with others.
    """
    finder = _Finder(folder)
    if not finder.files:
        return False
    if early := sorted(finder.files.keys() & sys.modules.keys()):
        raise RuntimeError(f"{', '.join(early)}: imported before it was said to take compiled ones")
    sys.meta_path.insert(0, finder)
    return True


def _digest() -> str:
    found = sha256(f"{sysconfig.get_config_var('SOABI')} {MODULES}".encode())
    for path in _sources():
        found.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:24]


def _sources() -> Iterator[Path]:
    for layer in LAYERS:
        yield from sorted((PACKAGE / layer).rglob("*.py"))


class _Finder(MetaPathFinder):
    def __init__(self, folder: Path) -> None:
        suffix = EXTENSION_SUFFIXES[0]
        self.files = {
            ".".join(path.relative_to(folder).parts).removesuffix(suffix): path
            for path in folder.rglob(f"*{suffix}")
        }

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - importlib's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        file = self.files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))
