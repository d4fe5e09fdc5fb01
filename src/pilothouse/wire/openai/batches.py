"""
Files and batches as OpenAI has them: lines in, lines out, and the objects that tell of them.

Source: the OpenAI API reference, "Files" and "Batch", and the guide "Batch API".
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, field

from pilothouse.domain.batch import Batch, BatchFault, Line, StoredFile

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
"""What a batch may ask."""
MOST_LINES = 50_000
_SHOWN_FAULTS = 100
_CUSTOM_ID_CHARS = 512


class _Body(Struct):
    model: str
    stream: bool | None = None
    previous_response_id: str | None = None


class _Line(Struct, forbid_unknown_fields=True):
    custom_id: str
    method: str
    url: str
    body: Raw


_read_line = msgspec.json.Decoder(_Line).decode
_read_body = msgspec.json.Decoder(_Body).decode


class LineRefused(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def read_line(text: bytes, number: int, endpoint: str) -> Line:
    """
    Raises:
        LineRefused: It is no request of such a batch; says which field.
    """
    try:
        line = _read_line(text)
        body = _read_body(line.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        kind = "invalid_line" if isinstance(exc, msgspec.ValidationError) else "invalid_json_line"
        raise LineRefused(kind, f"this line is not a request of a batch: {exc}"[:500]) from exc
    if not 0 < len(line.custom_id) <= _CUSTOM_ID_CHARS:
        raise LineRefused(
            "invalid_custom_id", f"custom_id has 1 to {_CUSTOM_ID_CHARS} characters", "custom_id"
        )
    if line.method != "POST":
        raise LineRefused("invalid_method", "method must be POST", "method")
    if line.url != endpoint:
        raise LineRefused("mismatched_url", f"url must be the batch's endpoint, {endpoint}", "url")
    if body.stream:
        raise LineRefused(
            "invalid_request", "an answer in a batch cannot be a stream; leave it out", "body.stream"
        )
    if body.previous_response_id:
        raise LineRefused(
            "invalid_request",
            "a request in a batch goes on from no earlier response; put what was said into its input",
            "body.previous_response_id",
        )
    return Line(number=number, custom_id=line.custom_id, model=body.model, body=bytes(line.body))


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Those that are not blank, with their numbers in the file, from 1."""
    for number, text in enumerate(lines, start=1):
        if text.strip():
            yield number, text


def check(lines: Iterable[bytes], endpoint: str) -> tuple[int, tuple[BatchFault, ...]]:
    """How many requests there are, and what is wrong with them; the first hundred faults."""
    faults: list[BatchFault] = []
    seen: set[str] = set()
    count = 0
    for number, text in numbered(lines):
        count += 1
        if count > MOST_LINES:
            faults.append(
                BatchFault(
                    code="too_many_requests",
                    message=f"a batch has at most {MOST_LINES} requests",
                    line=number,
                )
            )
            break
        try:
            line = read_line(text, number, endpoint)
        except LineRefused as exc:
            faults.append(BatchFault(code=exc.code, message=str(exc), line=number, param=exc.param))
        else:
            if line.custom_id in seen:
                why = "an earlier line has this custom_id"
                faults.append(
                    BatchFault(code="duplicate_custom_id", message=why, line=number, param="custom_id")
                )
            seen.add(line.custom_id)
        if len(faults) >= _SHOWN_FAULTS:
            break
    if not count:
        faults.append(BatchFault(code="empty_file", message="the file has no request"))
    return count, tuple(faults)


class _Response(Struct, kw_only=True):
    status_code: int
    request_id: str
    body: Raw


class _Error(Struct, kw_only=True):
    code: str
    message: str


class Result(Struct, kw_only=True):
    """One line of an output or error file."""

    id: str
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None

    @property
    def line(self) -> int:
        """The number of the line that it answers."""
        return int(self.id.rpartition("_")[2])


_read_result = msgspec.json.Decoder(Result).decode


def read_result(text: bytes) -> Result:
    return _read_result(text)


def write_answer(batch: Batch, line: Line, *, status: int, request_id: str, body: bytes) -> bytes:
    """The line of a request that was answered, be it by an error."""
    response = _Response(status_code=status, request_id=request_id, body=Raw(body))
    return _written(Result(id=_result_id(batch, line), custom_id=line.custom_id, response=response))


def write_unasked(batch: Batch, line: Line, code: str) -> bytes:
    """The line of a request that had no answer."""
    why = _WHY.get(code, "the server could not be asked; send the request in another batch")
    error = _Error(code=code, message=why)
    return _written(Result(id=_result_id(batch, line), custom_id=line.custom_id, error=error))


_WHY = {
    "batch_expired": "this request was not answered before the batch's completion window ended",
    "batch_cancelled": "this request was not answered before the batch was cancelled",
}


def _written(result: Result) -> bytes:
    return msgspec.json.encode(result) + b"\n"


def _result_id(batch: Batch, line: Line) -> str:
    return f"batch_req_{batch.id.removeprefix('batch_')}_{line.number}"


class FileObject(Struct, kw_only=True):
    id: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    object: Literal["file"] = "file"
    status: Literal["processed"] = "processed"
    status_details: None = None


def file_object(file: StoredFile) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.size_bytes,
        created_at=int(file.created_at),
        expires_at=int(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
    )


class Counts(Struct, kw_only=True):
    total: int
    completed: int
    failed: int


class FaultList(Struct, kw_only=True):
    data: tuple[BatchFault, ...]
    object: Literal["list"] = "list"


class BatchObject(Struct, kw_only=True):
    id: str
    endpoint: str
    errors: FaultList | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: Counts
    metadata: dict[str, str] | None
    object: Literal["batch"] = "batch"


def batch_object(batch: Batch) -> BatchObject:
    came: dict[str, Any] = {status: int(time) for status, time in batch.times.items()}
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        errors=FaultList(data=batch.faults) if batch.faults else None,
        input_file_id=batch.input_file,
        completion_window=batch.completion_window,
        status=batch.status,
        output_file_id=batch.output_file or None,
        error_file_id=batch.error_file or None,
        created_at=int(batch.created_at),
        in_progress_at=came.get("in_progress"),
        expires_at=int(batch.expires_at),
        finalizing_at=came.get("finalizing"),
        completed_at=came.get("completed"),
        failed_at=came.get("failed"),
        expired_at=came.get("expired"),
        cancelling_at=came.get("cancelling"),
        cancelled_at=came.get("cancelled"),
        request_counts=Counts(total=batch.total, completed=batch.completed, failed=batch.failed),
        metadata=batch.metadata,
    )


class ExpiresAfter(Struct, kw_only=True, forbid_unknown_fields=True):
    seconds: int
    anchor: Literal["created_at"] = "created_at"


class BatchWish(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None


class ListObject(Struct, kw_only=True):
    data: list[Any] = field(default_factory=list)
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
    object: Literal["list"] = "list"
