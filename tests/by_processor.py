"""
Which tests share a process when several run: those of a file, and all that start programs.

The quick ones come first, on every processor; then what starts programs has the
machine for itself, for those tests promise times, and limits that time gives back.

Belongs here: nothing but that. What two processes must not do at once (fetch a model, install
clients) is locked where it is done.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

START_PROGRAMS = ("tests/conformance/", "tests/e2e/", "tests/integration/")
COMPILES = "tests/integration/test_compiled.py"
"""Three minutes of a C compiler: one process begins with it, while the others run the unit tests."""


class ByProcessor(LoadFileScheduling):
    """Files in the order that they were collected in, and one process for all that start programs."""

    def _split_scope(self, nodeid: str) -> str:
        return "programs" if _order(nodeid) == 2 else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByProcessor:
    return ByProcessor(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _order(item.nodeid))


def _order(nodeid: str) -> int:
    if nodeid.startswith(COMPILES):
        return 0
    return 2 if nodeid.startswith(START_PROGRAMS) else 1
