"""Examples of domain values for tests of stores and of what uses them: whole, plain, changed by name."""

from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from pilothouse.domain.model import ModelHeader, ModelVersion
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.tenancy import ApiKeyRow
from pilothouse.ports.store import Page, SealedRecord

T = TypeVar("T")
HEADER = ModelHeader(
    architecture="llama", context_tokens=2048, quantization="Q4_1", parameters=1, head_dim=64
)


def make_key(key_id: str, *, team: str = "red", created_at: float = 1.0, **changes: object) -> ApiKeyRow:
    row = ApiKeyRow(id=key_id, team=team, role="developer", mac=b"\x00mac", created_at=created_at)
    return replace(row, **changes)


def make_model(name: str, version: str, *, digest: str = "sha256:a", created_at: float = 1.0) -> ModelVersion:
    return ModelVersion(
        name=name,
        version=version,
        digest=digest,
        format="gguf",
        bytes=10,
        quantization="Q4_1",
        context_tokens=2048,
        licence="Apache-2.0",
        source="file:x",
        source_digest="sha256:b",
        header=HEADER,
        created_at=created_at,
    )


def make_record(record_id: str, *, time: float = 60.0, **changes: object) -> InferenceRecord:
    record = InferenceRecord(
        id=record_id, time=time, team="red", key_id="k1", endpoint="chat", deployment="d1"
    )
    return replace(record, **changes)


def sealed(record_id: str, *, content: bytes | None = b"sealed", **changes: object) -> SealedRecord:
    record = make_record(record_id, **changes)  # type: ignore[arg-type]
    return SealedRecord(record=record, content=content, sealing_key="s1" if content is not None else "")


def pages_of(fetch: Callable[[str | None], Page[T]]) -> list[list[T]]:
    """All pages' items; more than ten mean that a cursor never ends."""
    found: list[list[T]] = []
    cursor: str | None = None
    for _ in range(10):
        page = fetch(cursor)
        found.append(page.items)
        cursor = page.next
        if cursor is None:
            return found
    raise AssertionError("the last page still has a cursor")
