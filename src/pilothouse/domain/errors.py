"""
Every error that Pilothouse raises, and what it means to the caller.

    PilothouseError
    ├── InvalidRequest 400            the request cannot be understood
    │   └── ContextLengthExceeded 400 prompt and answer do not fit the model
    ├── InvalidApiKey 401
    ├── PermissionDenied 403
    ├── NotFound 404                  a thing of the admin API
    │   └── ModelNotFound 404         an endpoint that is not there
    ├── Conflict 409
    ├── RequestTooLarge 413
    ├── RateLimitExceeded 429
    ├── BudgetExceeded 429            the money of the period is spent
    ├── ClientClosed 499              the caller hung up
    ├── Internal 500                  a defect of ours
    ├── NotSupported 501
    ├── UpstreamError 502             an engine answered nonsense, or cut the stream
    │   └── AnswerUnfit 502           the model did not keep to the form that was asked for
    ├── Overloaded 503                every slot and queue place is taken
    ├── EngineUnavailable 503         no replica is ready
    ├── StoreUnavailable 503          the record cannot be kept
    ├── DeadlineExceeded 504
    ├── ModelFileRefused 400          a model file that must not be loaded
    ├── ServerUnreachable 503         a client of the admin API found no server
    └── OperationFailed 500           a command of an operator failed; the message says why

Each answers four questions: `code` (stable, documented), `status`, `retryable`,
`level` (of the log line). Messages say what was wrong and what to do next; no
secret and no prompt ever appears in one.
"""

from collections.abc import Sequence
from typing import ClassVar


class PilothouseError(Exception):
    """Base of all errors raised by Pilothouse."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    level: ClassVar[str] = "error"
    kind: ClassVar[str] = "server_error"  # the OpenAI `type`
    has_begun = False
    """An engine had begun to answer: asking again would have the work done, and paid, twice."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(PilothouseError):
    """`faults`: where several things are wrong, each by itself, beginning with its field."""

    code, status, level, kind = "invalid_request", 400, "info", "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        faults: Sequence[str] = (),
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.faults = tuple(faults)


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"

    @classmethod
    def counted(
        cls, has: object, holds: object, *, unit: str = "tokens", param: str = "messages"
    ) -> "ContextLengthExceeded":
        """Where both counts are known: of the prompt, in `unit`, and of the model's context, in tokens."""
        return cls(
            f"the prompt has {has} {unit} and the model's context holds {holds} tokens; shorten the prompt",
            param=param,
        )


class InvalidApiKey(PilothouseError):
    code, status, level, kind = "invalid_api_key", 401, "info", "authentication_error"


class PermissionDenied(PilothouseError):
    code, status, level, kind = "permission_denied", 403, "info", "permission_error"


class NotFound(PilothouseError):
    code, status, level, kind = "not_found", 404, "info", "invalid_request_error"


class ModelNotFound(NotFound):
    code = "model_not_found"


class Conflict(PilothouseError):
    code, status, level, kind = "conflict", 409, "info", "invalid_request_error"


class RequestTooLarge(PilothouseError):
    code, status, level, kind = "request_too_large", 413, "info", "invalid_request_error"


class RateLimitExceeded(PilothouseError):
    code, status, retryable, level, kind = "rate_limit_exceeded", 429, True, "info", "rate_limit_error"


class BudgetExceeded(PilothouseError):
    code, status, level, kind = "budget_exceeded", 429, "info", "insufficient_quota"


class ClientClosed(PilothouseError):
    code, status, level = "client_closed", 499, "info"


class Internal(PilothouseError):
    pass


class NotSupported(PilothouseError):
    code, status, level, kind = "not_supported", 501, "info", "invalid_request_error"


class UpstreamError(PilothouseError):
    code, status, retryable, level = "upstream_error", 502, True, "warning"


class AnswerUnfit(UpstreamError):
    """The engine is well; it is the model that did not do as it was told."""

    level = "info"


class Overloaded(PilothouseError):
    code, status, retryable, level = "overloaded", 503, True, "warning"


class EngineUnavailable(PilothouseError):
    code, status, retryable, level = "engine_unavailable", 503, True, "warning"


class StoreUnavailable(PilothouseError):
    code, status, retryable, level = "store_unavailable", 503, True, "error"


class DeadlineExceeded(PilothouseError):
    code, status, retryable, level = "deadline_exceeded", 504, True, "warning"


class ModelFileRefused(PilothouseError):
    code, status, level, kind = "model_file_refused", 400, "warning", "invalid_request_error"


class ServerUnreachable(PilothouseError):
    code, status, retryable, level = "server_unreachable", 503, True, "warning"


class OperationFailed(PilothouseError):
    code, status, level = "operation_failed", 500, "error"
