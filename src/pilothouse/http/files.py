"""`/v1/files` and `/v1/batches`: how callers of models hand in work that may wait."""

from collections.abc import AsyncIterator
from email.message import Message
from typing import Any

from litestar import Request, delete, get, post
from litestar.params import JSONBody
from litestar.response import Stream
from litestar.types import ControllerRouterHandler
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from pilothouse.control.files import opened
from pilothouse.domain.batch import Batch, StoredFile
from pilothouse.domain.errors import InvalidRequest
from pilothouse.http.access import Asked, needs
from pilothouse.http.paging import Id, Limit, Word
from pilothouse.http.plane import plane_of
from pilothouse.wire.openai.batches import (
    BatchObject,
    BatchWish,
    FileObject,
    ListObject,
    batch_object,
    file_object,
)

_USE = needs("files.use")
_FIELD_BYTES = 1024
_PARTS = 16
_NAME_CHARS = 255


class Upload:
    """What stands in an upload beside the file; the file's bytes are passed on as they come."""

    def __init__(self, request: Request[Any, Any, Any]) -> None:
        self.fields: dict[str, str] = {}
        self.filename = ""
        self._stream = request.stream()
        content = Message()
        content["content-type"] = request.headers.get("content-type", "")
        boundary = content.get_boundary()
        if content.get_content_type() != "multipart/form-data" or not boundary:
            raise InvalidRequest("send the file as multipart/form-data, with its fields purpose and file")
        self._parser = PushMultipartParser(boundary.encode(), max_segment_count=_PARTS)
        self._segment: MultipartSegment | None = None
        self._value = bytearray()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the part `file`; all fields are there once it has ended."""
        try:
            async for data in self._stream:
                for found in self._parser.parse(data) if data else ():
                    if piece := self._take(found):
                        yield piece
            self._parser.close()
        except MultipartError as exc:
            raise InvalidRequest(f"the body is not multipart/form-data: {exc}") from exc
        if not self.filename:
            raise InvalidRequest("the part `file`, with a filename, is missing", param="file")
        if self.fields.get("purpose") != "batch":
            raise InvalidRequest("purpose must be batch; there is no other here", param="purpose")

    def _take(self, found: "MultipartSegment | bytearray | None") -> bytes:
        if isinstance(found, MultipartSegment):
            self._segment, self._value = found, bytearray()
            if found.name == "file":
                self.filename = (found.filename or "")[:_NAME_CHARS]
            return b""
        if self._segment is None:
            return b""
        if found is None:
            if self._segment.name != "file":
                self.fields[self._segment.name] = self._value.decode(errors="replace")
            self._segment = None
            return b""
        if self._segment.name == "file":
            return bytes(found)
        self._value += found
        if len(self._value) > _FIELD_BYTES:
            raise InvalidRequest(f"a field is over {_FIELD_BYTES} bytes", param=self._segment.name[:64])
        return b""

    @property
    def expires_s(self) -> float | None:
        written = self.fields.get("expires_after[seconds]")
        if written is None:
            return None
        if not written.isdigit() or self.fields.get("expires_after[anchor]", "created_at") != "created_at":
            raise InvalidRequest(
                "expires_after has seconds, a number, and anchor, created_at", param="expires_after"
            )
        return float(written)


@post("/v1/files", opt=_USE, status_code=200, include_in_schema=False, request_max_body_size=None)
async def upload(request: Asked) -> FileObject:
    """Keep a file of requests."""
    file = await plane_of(request).batches.files.add(request.user, Upload(request))
    return file_object(file)


@get("/v1/files", opt=_USE, include_in_schema=False)
async def list_files(
    request: Asked, after: Word = None, limit: Limit = 100, purpose: Word = None, order: Word = None
) -> ListObject:
    """Newest first."""
    _refuse_order(order)
    found = await plane_of(request).batches.files.page(request.user, after=after, limit=limit + 1)
    return _list([file_object(file) for file in found if purpose in (None, file.purpose)], limit)


@get("/v1/files/{file_id:str}", opt=_USE, include_in_schema=False)
async def retrieve_file(request: Asked, file_id: Id) -> FileObject:
    return file_object(await plane_of(request).batches.files.get(request.user, file_id))


@get("/v1/files/{file_id:str}/content", opt=_USE, include_in_schema=False)
async def file_content(request: Asked, file_id: Id) -> Stream:
    files = plane_of(request).batches.files
    file = await files.get(request.user, file_id)
    return Stream(opened(await files.log_of(file)), media_type="application/octet-stream")


@delete("/v1/files/{file_id:str}", opt=_USE, status_code=200, include_in_schema=False)
async def delete_file(request: Asked, file_id: Id) -> dict[str, Any]:
    batches = plane_of(request).batches
    file: StoredFile = await batches.files.get(request.user, file_id)
    await batches.remove_file(file)
    return {"id": file.id, "object": "file", "deleted": True}


@post("/v1/batches", opt=_USE, status_code=200, include_in_schema=False)
async def create_batch(request: Asked, data: JSONBody[BatchWish]) -> BatchObject:
    return batch_object(await plane_of(request).batches.create(request.user, data))


@get("/v1/batches", opt=_USE, include_in_schema=False)
async def list_batches(request: Asked, after: Word = None, limit: Limit = 20) -> ListObject:
    """Newest first."""
    found = await plane_of(request).batches.page(request.user, after=after, limit=limit + 1)
    return _list([batch_object(batch) for batch in found], limit)


@get("/v1/batches/{batch_id:str}", opt=_USE, include_in_schema=False)
async def retrieve_batch(request: Asked, batch_id: Id) -> BatchObject:
    return batch_object(await plane_of(request).batches.get(request.user, batch_id))


@post("/v1/batches/{batch_id:str}/cancel", opt=_USE, status_code=200, include_in_schema=False)
async def cancel_batch(request: Asked, batch_id: Id) -> BatchObject:
    batch: Batch = await plane_of(request).batches.cancel(request.user, batch_id)
    return batch_object(batch)


def _refuse_order(order: str | None) -> None:
    if order not in (None, "desc"):
        raise InvalidRequest("order is desc, the newest first", param="order")


def _list(objects: list[Any], limit: int) -> ListObject:
    shown = objects[:limit]
    return ListObject(
        data=shown,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=len(objects) > limit,
    )


ROUTES: list[ControllerRouterHandler] = [
    upload,
    list_files,
    retrieve_file,
    file_content,
    delete_file,
    create_batch,
    list_batches,
    retrieve_batch,
    cancel_batch,
]
