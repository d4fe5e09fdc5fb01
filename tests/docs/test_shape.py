"""
The shape of the code stays as the design drew it.

The rules are in `shape_rules`; here they meet the code, and each meets a planted
fault, so that none is a rule that cannot fail.
"""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import shape_rules as rules
from shape_rules import Rule, Source

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / rules.PACKAGE
WORKER = PACKAGE / "app" / "worker.py"

BROAD_EXCEPTS = {
    "adapters/engines/_llama_child.py:main": "the process ends here; the log's reader is told why",
    "adapters/engines/_torchserve_handler.py:Handler.initialize": "the server is ended with it, and told why",
    "control/drain.py:Drain._store": "all other records are protected from one that no store can take",
    "control/evidence.py:Evidence._scores": "records are protected from the defect of a judge",
    "control/store_thread.py:StoreThread.start.body": "told to the caller of start, on its own thread",
    "control/store_thread.py:_Job.run": "the store's thread serves all: an error is its caller's alone",
    "gateway/several.py:_lane": "the lane's task ends here; its consumer raises what went wrong",
    "gateway/pipeline.py:Pipeline._run": "one request's defect must not end the worker, nor go unrecorded",
    "kit/cohort.py:CohortTask.step": "the other tasks of a cohort are protected from this one",
    "kit/cohort.py:CohortTask._wake": "what a future holds belongs to the task that waits for it",
    "kit/journal/writer.py:JournalWriter._keep_a_spare": "serving goes on while a disk or key fails",
    "kit/plugins.py:Plugins.__getitem__": "all other engines are protected from a broken package",
    "kit/tasks.py:Tasks._again": "a loop that must go on is protected from one bad round",
    "kit/tasks.py:Tasks._once": "the owner and the other tasks are protected from this one",
}
"""Where everything may be caught: the task's end, and who is protected from what."""

HEAVY = {"alembic", "click", "gguf", "litestar", "numpy", "rich", "sqlalchemy", "uvicorn", "xllamacpp"}
"""What a worker must not carry: it has 64 MB, and starts within the blink that a restart may take."""

RULES: dict[Rule, Source] = {
    rules.length: Source("gateway/pipeline.py", "x = 1\n" * 201),
    rules.functions: Source("a.py", "def f(a, b, c, d, e, *, f, g, h, i): ..."),
    rules.classes: Source("a.py", "class A:\n" + "".join(f" def f{n}(self): ...\n" for n in range(21))),
    rules.hidden_imports: Source("a.py", "def f():\n if 1:\n  from pilothouse.kit import clock"),
    rules.environment: Source("kit/a.py", "from os import getenv"),
    rules.global_names: Source("a.py", "def f():\n global x\n x = 1"),
    rules.dangerous_calls: Source("a.py", "import subprocess\nsubprocess.run('ls', shell=True)"),
    rules.docstrings: Source("kit/__init__.py", '"""A kit."""\nfrom pilothouse.kit import clock'),
}
"""Each rule with a fault that it must find."""

MORE_FAULTS = [
    (rules.length, Source("kit/a.py", "x = 1\n" * 501)),
    (rules.length, Source("tests/unit/test_a.py", "x = 1\n" * 801)),
    (rules.functions, Source("a.py", "class A:\n async def f(self):\n" + "  x = 1\n" * 61)),
    (rules.hidden_imports, Source("kit/a.py", "class A:\n def f(self):\n  from .clock import Clock")),
    (rules.environment, Source("kit/a.py", "import os\nx = os.environ['A']")),
    (rules.dangerous_calls, Source("a.py", "from pickle import loads")),
    (rules.dangerous_calls, Source("a.py", "import os\nos.system('ls')")),
    (rules.dangerous_calls, Source("a.py", "eval('1')")),
    (rules.docstrings, Source("kit/a.py", "x = 1")),
    (rules.docstrings, Source("__init__.py", '"""Root."""\nfrom pilothouse.kit import clock')),
]


@cache
def package() -> list[Source]:
    return [_source(path, PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]


@cache
def outside() -> list[Source]:
    folders = [ROOT / name for name in ("tests", "bench", "docs")]
    paths = [path for folder in folders for path in folder.rglob("*.py") if ".venv" not in path.parts]
    return [_source(path, ROOT) for path in sorted(paths)]


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git clone: which files are tracked is not known")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def _source(path: Path, root: Path) -> Source:
    return Source(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule):
    faults = [fault for source in package() if source.text.strip() for fault in rule(source)]

    assert not faults, "\n" + "\n".join(faults)


def test_tests_and_benches_are_not_too_long():
    faults = [fault for source in outside() for fault in rules.length(source)]

    assert not faults, "\n" + "\n".join(faults)


def test_benches_turn_no_input_into_code():
    faults = [
        fault
        for source in outside()
        if source.path.startswith("bench/")
        for fault in rules.dangerous_calls(source)
    ]

    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("rule", "planted"), [*RULES.items(), *MORE_FAULTS], ids=lambda value: getattr(value, "__name__", "")
)
def test_a_planted_fault_is_found(rule: Rule, planted: Source):
    assert len(rule(planted)) == 1


def test_a_function_is_measured_without_its_docstring_and_its_self():
    text = "class A:\n def f(self, a, b, c, d, *, e, f, g, h):\n  '''\n" + "  long\n" * 90 + "  '''\n"

    assert not rules.functions(Source("a.py", text))


def test_everything_is_caught_only_where_the_table_says_why():
    found = {place: line for source in package() for place, line in rules.broad_excepts(source)}

    unlisted = [f"{place} (line {line})" for place, line in found.items() if place not in BROAD_EXCEPTS]
    assert not unlisted, f"catch less, or say in BROAD_EXCEPTS who is protected from what: {unlisted}"


def test_the_table_of_broad_excepts_lists_nothing_that_is_gone():
    found = {place for source in package() for place, _ in rules.broad_excepts(source)}

    assert not BROAD_EXCEPTS.keys() - found


@pytest.mark.parametrize("caught", ["Exception", "(ValueError, BaseException)", ""])
def test_a_planted_broad_except_is_found(caught: str):
    text = f"class A:\n def f(self):\n  try: ...\n  except {caught}: ..."

    assert rules.broad_excepts(Source("a.py", text)) == [("a.py:A.f", 4)]


def test_a_broad_except_that_tidies_up_and_raises_again_is_no_fault():
    text = "try: ...\nexcept BaseException:\n tidy()\n raise"

    assert not rules.broad_excepts(Source("a.py", text))


def test_no_modules_need_each_other_at_import_time():
    assert not rules.import_cycles(package())


def test_a_planted_cycle_is_found():
    planted = [
        Source("kit/a.py", "from pilothouse.kit.b import x"),
        Source("kit/b.py", "from . import c"),
        Source("kit/c.py", "import pilothouse.kit.a"),
    ]

    assert len(rules.import_cycles(planted)) == 1


def test_an_import_for_the_type_checker_alone_makes_no_cycle():
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n from pilothouse.kit.b import x"

    assert not rules.import_cycles(
        [Source("kit/a.py", guarded), Source("kit/b.py", "from pilothouse.kit.a import y")]
    )


def test_no_tracked_file_names_a_registry_or_a_path_of_this_machine():
    faults = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # an image, or deleted and not yet committed
        faults += rules.foreign_names(path.relative_to(ROOT).as_posix(), text)

    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize(
    "planted", ["see https://py" + "pi.org/simple", "cd /ro" + "ot/project", "cp /tm" + "p/exp/m ."]
)
def test_a_planted_foreign_name_is_found(planted: str):
    assert len(rules.foreign_names("README.md", f"fine\n{planted}")) == 1


def test_files_over_the_aim_are_named(record_property):
    over = [f"{source.path} {source.lines}" for source in package() if source.lines > rules.AIM_LINES]

    if over:
        record_property("note", f"over the aim of {rules.AIM_LINES} lines: {', '.join(over)}")


@pytest.mark.skipif(not WORKER.exists(), reason="pilothouse.app.worker does not exist yet")
def test_the_worker_imports_nothing_heavy():
    assert _heavy_after("pilothouse.app.worker, pilothouse.app.serving") == set()


def test_a_heavy_import_is_found():
    assert _heavy_after("sqlalchemy") == {"sqlalchemy"}


def _heavy_after(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return HEAVY & {name.split(".")[0] for name in done.stdout.split()}
