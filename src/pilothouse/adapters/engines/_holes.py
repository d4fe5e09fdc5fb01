"""
Versions of vLLM and SGLang that have known holes, and since when they are closed.

Belongs here: the table and one comparison. The one idea: a version with a hole is
not served from, whoever started it. A table ages: `AS_OF` says when it was last
held against the published advisories.
"""

import re
from collections.abc import Sequence

from msgspec import Struct

AS_OF = "2026-11-29"


class Hole(Struct, frozen=True):
    """In versions from `since` up to but without `fixed`; `lets` completes "it lets ..."."""

    name: str
    since: str
    fixed: str
    lets: str


VLLM = (
    Hole("CVE-2025-32444", "0.6.5", "0.8.5", "the network run code, by pickles sent to Mooncake's sockets"),
    Hole("CVE-2026-27893", "0.10.1", "0.18.0", "a model run code although that was switched off"),
    Hole("CVE-2026-56340", "0.10.2", "0.13.0", "a request write into memory, by embeddings as a prompt"),
    Hole("CVE-2026-34756", "0.1.0", "0.19.0", "one request take all memory, by a huge `n`"),
    Hole("CVE-2026-41523", "0", "0.22.0", "a model run code where Python is optimized"),
    Hole("CVE-2026-105757", "0", "0.30.0", "a request end the engine, by a form that cannot be compiled"),
    Hole("PYSEC-2026-4325", "0", "0.30.0", "anybody take all memory, by made-up HTTP methods"),
    Hole("CVE-2026-114053", "0.7.3", "0.31.0", "a request choose the code that a model brings"),
    Hole("CVE-2026-115911", "0.19.0", "0.32.0", "a request stop all chats, by a template of its own"),
    Hole("PYSEC-2026-4349", "0.16.0", "0.32.0", "a request bring a template although that was switched off"),
)
"""Of the PyPA advisory database and the CVE list."""
SGLANG = (
    Hole("CVE-2026-3059", "0", "0.5.10", "the network run code, by pickles sent to the image broker"),
    Hole("CVE-2026-3060", "0", "0.5.10", "the network run code, by pickles sent to the encoder"),
    Hole("CVE-2026-15976", "0", "0.5.16", "a model's pickles run code when weights are changed"),
    Hole("CVE-2026-86793", "0", "0.5.19", "anybody without a key run code, by pickled weights"),
    Hole("CVE-2026-93034", "0", "0.5.21", "the network run code, by pickles between its parts"),
    Hole("CVE-2026-111392", "0.5.13", "0.5.22", "a request read another's picture out of the cache"),
    Hole("CVE-2026-112266", "0", "0.5.23", "a request end those of others, by a short id"),
)
"""Of the CVE list, which names the last version affected: `fixed` is the next one."""


def holes_of(version: str, table: Sequence[Hole]) -> list[Hole]:
    """Those that a version has; none for one whose number cannot be read, such as a build from source."""
    found = numbers(version)
    if not found:
        return []
    return [hole for hole in table if numbers(hole.since) <= found < numbers(hole.fixed)]


def why_refused(engine: str, version: str, table: Sequence[Hole]) -> str:
    """A sentence for people, "" for a version that may be used."""
    holes = holes_of(version, table)
    if not holes:
        return ""
    closed = max((hole.fixed for hole in table), key=numbers)
    named = "; ".join(f"{hole.name} lets {hole.lets}" for hole in holes[-2:])
    more = f" and {len(holes) - 2} more" if len(holes) > 2 else ""
    return f"{engine} {version} has known holes ({named}{more}); fix: upgrade to {closed} or newer"


def numbers(version: str) -> tuple[int, ...]:
    """`0.32.0rc1+cpu` is (0, 32, 0): what follows the numbers neither opens nor closes a hole."""
    found = re.match(r"v?(\d{1,9}(?:\.\d{1,9}){0,3})", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
