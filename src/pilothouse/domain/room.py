"""Whether something large may go to a disk that records are written to as well."""

from pilothouse.domain.errors import OperationFailed

KEPT_FREE_BYTES = 256 * 1024 * 1024
"""Never filled by a model: the journal and the store live on the same disk."""


def check_room(need_bytes: int, available_bytes: int, *, what: str, where: str) -> None:
    """
    Raises:
        OperationFailed: It does not fit; the message shows the arithmetic.
    """
    total = need_bytes + KEPT_FREE_BYTES
    if total > available_bytes:
        raise OperationFailed(
            f"{what} needs {_mb(need_bytes)}, and {_mb(KEPT_FREE_BYTES)} stay free for records: "
            f"{_mb(total)} in all, but {where} has {_mb(available_bytes)}. "
            f"Free {_mb(total - available_bytes)}, or choose a larger disk with --home"
        )


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
