"""
Which licences may run: SPDX names and simple expressions against a list.

Pure. `MIT OR Apache-2.0` may run when one of them may, `MIT AND CC-BY-4.0` when
both may (SPDX specification 2.3, annex D, without its parentheses).
"""

from collections.abc import Collection


def licence_fault(licence: str, allowed: Collection[str]) -> str:
    """
    Why a model of that licence may not run; "" when it may.

    Args:
        allowed: SPDX names, whatever their case; none is: every licence, a missing one too.
    """
    if not allowed:
        return ""
    wanted = ", ".join(sorted(allowed))
    if not licence.strip():
        return (
            f"its licence is not known, and the policy wants one of: {wanted}. Find it out, then declare it "
            "as `licence`"
        )
    known = {one.lower() for one in allowed}
    words = licence.lower().replace("(", " ").replace(")", " ")
    choices = [choice.split(" and ") for choice in words.split(" or ")]
    if any(all(part.strip() in known for part in choice) for choice in choices):
        return ""
    return f"its licence {licence[:64]!r} is none that the policy allows: {wanted}"
