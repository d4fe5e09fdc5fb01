"""
Rules on the shape of the code, as functions from a source file to its faults.

They gate the tails (the longest file, the widest signature, the hidden import),
because that is where admired code and tangled code differ. `docs/test_shape.py`
applies them and proves on a planted fault that each of them can fail.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "pilothouse"
AIM_LINES = 200
LOOP_FILES = ("gateway/pipeline.py", "control/reconcile.py", "improve/cycle.py")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A Python file, its path relative to `src/pilothouse` (or to the root, outside the package)."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Walked once for all rules."""
        return list(ast.walk(self.tree))

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def module(self) -> str:
        parts = [PACKAGE, *Path(self.path).with_suffix("").parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


Rule = Callable[[Source], list[str]]


def length(source: Source) -> list[str]:
    """A file holds one idea: 500 lines, 200 for a loop file, 800 for tests."""
    limit = 200 if source.path in LOOP_FILES else 800 if source.path.startswith("tests/") else 500
    return [f"{source.path} has {source.lines} lines; at most {limit}"] if source.lines > limit else []


def functions(source: Source) -> list[str]:
    """A function without its docstring has at most 60 lines, and 8 parameters beside self."""
    faults = []
    for name, node in _functions(source.tree):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1 - _docstring_lines(node)
        if lines > 60:
            faults.append(f"{source.path}: {name} has {lines} lines; at most 60")
        names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        names = [given for given in names if given not in {"self", "cls"}]
        if len(names) > 8:
            faults.append(f"{source.path}: {name} takes {len(names)} parameters; at most 8")
    return faults


def classes(source: Source) -> list[str]:
    """A class has at most 20 methods."""
    faults = []
    for node in source.nodes:
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(item, Function) for item in node.body)
            if methods > 20:
                faults.append(f"{source.path}: class {node.name} has {methods} methods; at most 20")
    return faults


def hidden_imports(source: Source) -> list[str]:
    """Our own package is never imported inside a function: that hides a cycle."""
    return [
        f"{source.path}:{inner.lineno}: {name} imports {PACKAGE} inside a function"
        for name, node in _functions(source.tree)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom) and _imported(inner, source)
    ]


def environment(source: Source) -> list[str]:
    """Only config.py reads or writes the environment."""
    if source.path == "config.py":
        return []
    words = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    found = [
        node.lineno
        for node in source.nodes
        if (isinstance(node, ast.Attribute) and node.attr in words)
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and words & {name.name for name in node.names}
        )
    ]
    return [f"{source.path}:{line}: the environment is read in config.py alone" for line in found]


def broad_excepts(source: Source) -> list[tuple[str, int]]:
    """
    Where everything is caught and kept, as (path:function, line); each must be listed with a reason.

    One that ends in a bare `raise` only tidies up, and is not meant.
    """
    found = [
        node
        for node in source.nodes
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _passes_on(node)
    ]
    if not found:
        return []
    owner = {id(inner): name for name, node in _functions(source.tree) for inner in ast.walk(node)}
    return [(f"{source.path}:{owner.get(id(node), '<module>')}", node.lineno) for node in found]


def global_names(source: Source) -> list[str]:
    """State that a function changes from afar cannot be moved, tested or shared."""
    return [
        f"{source.path}:{node.lineno}: global {', '.join(node.names)}"
        for node in source.nodes
        if isinstance(node, ast.Global)
    ]


def dangerous_calls(source: Source) -> list[str]:
    """No shell, no pickle, no eval: input never becomes code."""
    faults = []
    for node in source.nodes:
        line = f"{source.path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            names = [module, *(alias.name for alias in node.names)]
            if bad := {"pickle", "marshal", "shelve", "dill", "cloudpickle"} & {
                name.split(".")[0] for name in names
            }:
                faults.append(f"{line}: imports {bad.pop()}")
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
                faults.append(f"{line}: calls {node.func.id}")
            if ast.unparse(node.func) in {"os.system", "os.popen", "asyncio.create_subprocess_shell"}:
                faults.append(f"{line}: runs a shell by {ast.unparse(node.func)}")
            if any(key.arg == "shell" and not _is_false(key.value) for key in node.keywords):
                faults.append(f"{line}: passes shell=")
    return faults


def docstrings(source: Source) -> list[str]:
    """Every module says what lives there; a package's `__init__` says that and nothing else."""
    body = source.tree.body
    if not ast.get_docstring(source.tree):
        return [f"{source.path} has no docstring"]
    if source.path == "__init__.py":
        rest = [ast.unparse(node) for node in body[1:]]
        if len(rest) != 1 or not rest[0].startswith("__version__ = "):
            return [f"{source.path} holds a docstring and __version__ only, not {rest}"]
    elif source.path.endswith("/__init__.py") and len(body) > 1:
        return [f"{source.path} is one docstring; move the rest into a module"]
    return []


def import_cycles(sources: Iterable[Source]) -> list[str]:
    """Modules that need each other at import time, each cycle as `a -> b -> a`."""
    sources = list(sources)
    known = {source.module for source in sources}
    graph = {source.module: sorted(set(_needs(source)) & known - {source.module}) for source in sources}
    found, done = [], set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" -> ".join([*path[path.index(module) :], module]))
            return
        if module in done:
            return
        for needed in graph[module]:
            visit(needed, [*path, module])
        done.add(module)

    for module in graph:
        visit(module, [])
    return found


# Spelled in parts, so that this file does not hold what it forbids.
_HOSTS = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "crates" + ".io",
    "golang" + ".org",
)
_PATHS = (
    "/wo" + "rk/main",
    "/wo" + "rk/shared",
    "/ro" + "ot/",
    "/op" + "t/wheels",
    "/op" + "t/pypi",
    "/tm" + "p/exp",
    "/tm" + "p/b",
)
_FOREIGN = re.compile("|".join(re.escape(word) for word in (*_HOSTS, *_PATHS)))


def foreign_names(path: str, text: str) -> list[str]:
    """No tracked file names a package registry's host or a path of the machine it was written on."""
    return [
        f"{path}:{number}: {found[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        if (found := _FOREIGN.search(line))
    ]


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Functions with their dotted names, an inner one after the one that holds it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        else:
            yield from _functions(node, prefix)


def _docstring_lines(node: Function) -> int:
    if ast.get_docstring(node) is None:
        return 0
    return (node.body[0].end_lineno or 0) - node.body[0].lineno + 1


def _needs(source: Source) -> Iterator[str]:
    """Names imported when the module is: not in functions, not for the type checker alone."""
    waiting: list[ast.AST] = [source.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imported(node, source)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, Function):
            waiting.extend(ast.iter_child_nodes(node))


def _imported(node: ast.Import | ast.ImportFrom, source: Source) -> list[str]:
    """Modules of ours that a statement imports; `from a import b` may mean the module a.b."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = node.module or ""
        if node.level:
            package = (
                source.module.split(".")
                if source.path.endswith("__init__.py")
                else source.module.split(".")[:-1]
            )
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
        names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == PACKAGE]


def _is_broad(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    return any(
        isinstance(node, ast.Name) and node.id in {"Exception", "BaseException"} for node in ast.walk(kind)
    )


def _passes_on(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False
