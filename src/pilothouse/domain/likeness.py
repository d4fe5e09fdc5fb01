"""
Whether two questions that sound alike may have the same answer: rules beside the vectors.

An embedding puts "with 5 mg" next to "with 50 mg", and "is it safe" next to "is
it not safe", for most of their words are the same. So what must not differ is
compared by itself: numbers and units and names in their order, negations, and
words of which only one of a pair of opposites can hold. A difference makes a
miss, never a wrong answer. The rules know English best; numbers and names they
see in every language with capitals.
"""

import re

from msgspec import Struct

from pilothouse.domain.likeness_words import NEGATIONS, NO_NAMES, NUMBERS, OPPOSITES, UNITS

MAX_CHARS = 2000
"""A longer question is compared by its exact text alone."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+(?:[.,:/]\d+)*|[%\u00b0$\u20ac\u00a3\u00a5]")
_SENTENCE_END = re.compile(r"[.!?:;\n\"\u201c(\u2022-]\s*$")
_COMMON = UNITS.keys() | NUMBERS.keys() | OPPOSITES.keys() | NEGATIONS
"""At the beginning of a sentence these are what they are elsewhere."""


class Marks(Struct, frozen=True):
    """What two questions must agree in, besides how near they are."""

    numbers: tuple[str, ...]
    units: tuple[str, ...]
    names: tuple[str, ...]
    negations: int
    opposites: frozenset[tuple[int, int]]


def marks_of(text: str) -> Marks:
    """The marks of a question; of its first `MAX_CHARS` characters."""
    numbers: list[str] = []
    units: list[str] = []
    names: list[str] = []
    opposites: set[tuple[int, int]] = set()
    negations = 0
    for found in _WORD.finditer(text[:MAX_CHARS]):
        word = found[0]
        if word[0].isdigit():
            numbers.append(_plain_number(word))
            continue
        lower = word.lower().replace("\u2019", "'")
        if lower in UNITS:
            units.append(UNITS[lower])
        elif lower in NUMBERS:
            numbers.append(NUMBERS[lower])
        if lower in NEGATIONS or lower.endswith("n't"):
            negations += 1
        if lower in OPPOSITES:
            opposites.add(OPPOSITES[lower])
        if _is_name(word, lower, text[: found.start()]):
            names.append(lower.removesuffix("'s"))
    return Marks(tuple(numbers), tuple(units), tuple(names), negations, frozenset(opposites))


def agree(one: Marks, other: Marks) -> bool:
    """Whether nothing that is known to matter differs between them."""
    return (
        one.numbers == other.numbers
        and one.units == other.units
        and one.names == other.names
        and one.negations % 2 == other.negations % 2
        and not _are_opposed(one.opposites, other.opposites)
    )


def _are_opposed(one: frozenset[tuple[int, int]], other: frozenset[tuple[int, int]]) -> bool:
    """Both speak of one pair of opposites, and not of the same side. What only one names is no matter."""
    shared = {pair for pair, _ in one} & {pair for pair, _ in other}
    return any({o for o in one if o[0] == pair} != {o for o in other if o[0] == pair} for pair in shared)


def _plain_number(text: str) -> str:
    """1,000 as 1000 and 2.50 as 2.5; a date or a time stays as it is written."""
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    if re.fullmatch(r"\d+\.\d+", text):
        text = text.rstrip("0").rstrip(".")
    return text.lstrip("0") or "0" if text.isdigit() else text


def _is_name(word: str, lower: str, before: str) -> bool:
    """A word with a capital that its place does not explain, or with one inside."""
    if not any(letter.isupper() for letter in word):
        return False
    if lower in NO_NAMES or lower.partition("'")[0] in NO_NAMES:
        return False
    if any(letter.isupper() for letter in word[1:]):
        return True
    starts_sentence = not before.strip() or _SENTENCE_END.search(before) is not None
    return not (starts_sentence and lower in _COMMON)
