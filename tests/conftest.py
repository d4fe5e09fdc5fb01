"""
What all tests share: the closing table of what was not tested, and notes.

A skipped test is a promise not checked, so each one is named with its reason at
the very end, where nobody scrolls past it. A test leaves a note for the reader
with `record_property("note", text)`.
"""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")  # how long an example takes says nothing on a machine with others on it

pytest_plugins = ["by_processor", "fixtures_models", "fixtures_node", "fixtures_postgres"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _print_notes(terminalreporter)
    _print_skipped(terminalreporter)


def _print_notes(reporter: pytest.TerminalReporter) -> None:
    for report in reporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == "note":
                reporter.write_line(f"note: {text}")


def _print_skipped(reporter: pytest.TerminalReporter) -> None:
    skipped = {report.nodeid: _reason(report) for report in reporter.stats.get("skipped", [])}
    if not skipped:
        return
    width = max(map(len, skipped))
    reporter.section(f"not tested here: {len(skipped)}", sep="=")
    for name, reason in sorted(skipped.items()):
        reporter.write_line(f"{name:{width}}  {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)
