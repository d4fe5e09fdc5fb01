"""
Keep what was freed at the heap's end, for a moment later it is needed again.

The C library gives it back to the kernel as soon as it is 128 KiB, which a few requests
with long prompts reach in each turn of the loop; to take it again costs a page fault for
each 4 KiB, and the kernel's work to clear them.

Source: mallopt(3) of the Linux man-pages, `M_TRIM_THRESHOLD`.
"""

import ctypes

KEPT_BYTES = 2 * 1024 * 1024
_M_TRIM_THRESHOLD = -1


def keep_freed(size_bytes: int = KEPT_BYTES) -> bool:
    """Whether this process keeps so much from now on; False where the C library is another than glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_TRIM_THRESHOLD, ctypes.c_int(size_bytes)) == 1
