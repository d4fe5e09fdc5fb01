"""
A gateway worker that knows OpenAI's dialect alone: `python -m rig.openai_only [the worker's options]`.

Empty modules stand for the other protocols' routes and codecs, which are never imported.
All else is the worker as it is, compiled where that one is.
"""

import sys
from types import ModuleType
from typing import Any

from pilothouse.app import worker

ROUTES = {
    "anthropic": "AnthropicRoutes",
    "kserve": "KServeRoutes",
    "moderations": "ModerationRoutes",
    "ollama": "OllamaRoutes",
    "responses": "ResponsesRoutes",
}
"""Modules of `pilothouse.http`, and the routes of each."""
CODECS = ("anthropic", "anthropic.answers", "kserve_v2", "kserve_v2.dialect", "ollama", "ollama.answers")
"""What the worker takes of `pilothouse.wire` beside those routes: how a body is refused that is too large."""


class _NoRoutes:
    """Answers nothing, and has no path."""

    def __init__(self, *parts: object) -> None: ...

    def exact(self) -> dict[str, Any]:
        return {}

    prefixes = exact

    def create(self, *asked: object) -> None:
        raise NotImplementedError


def leave_out() -> None:
    """Put empty modules in the place of the other protocols'."""
    for name, routes in ROUTES.items():
        _empty(f"pilothouse.http.{name}", {routes: _NoRoutes, "VERSION_HEADER": b"anthropic-version"})
    for name in CODECS:
        _empty(f"pilothouse.wire.{name}", {"write_error": None, "status_of": None})
    for name in ("anthropic.answers", "kserve_v2.dialect", "ollama.answers"):
        package, _, module = name.partition(".")
        setattr(sys.modules[f"pilothouse.wire.{package}"], module, sys.modules[f"pilothouse.wire.{name}"])


def _empty(name: str, holds: dict[str, Any]) -> None:
    module = ModuleType(name)
    module.__path__ = []  # a package without modules: whatever else it had cannot be imported
    module.__dict__.update(holds)
    sys.modules[name] = module


if __name__ == "__main__":
    leave_out()
    worker.main()
