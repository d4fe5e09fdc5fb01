"""Texts of the command line: safe to print, and figures as people read them. Imports nothing that is slow."""

import re
import time

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Without control characters: an answer or a name must not move the cursor or retitle the window."""
    return _CONTROL.sub("", text.encode(errors="replace").decode())


def size(value: float | None) -> str:
    """`98.4 MB`: powers of 1000, as disks are sold."""
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def ago(then: float | None, *, now: float | None = None) -> str:
    """`3m`: how long ago, in the largest unit."""
    if not then:
        return "-"
    return span((time.time() if now is None else now) - then)


def span(seconds: float) -> str:
    """`42s`, `3m`, `5h`, `12d`."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def moment(then: float | None) -> str:
    """`2026-11-22 21:09:05Z`"""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(then)) if then else "-"


def dollars(micro_usd: int) -> str:
    return f"${micro_usd / 1e6:.4f}" if micro_usd % 10_000 else f"${micro_usd / 1e6:.2f}"


def limits_text(limits: object) -> str | None:
    """`60 rpm, 10usd/month`; None where there is no limit."""
    found = limits if isinstance(limits, dict) else {}
    numbers = [f"{found[name]} {name}" for name in ("rpm", "tpm", "parallel") if found.get(name)]
    return ", ".join([*numbers, *([str(found["budget"])] if found.get("budget") else [])]) or None
