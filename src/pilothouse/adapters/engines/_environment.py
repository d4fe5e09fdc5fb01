"""
Engines too heavy for Pilothouse's own environment live in one of their own, beside it.

`<prefix>/engines/<name>` of the interpreter that runs Pilothouse: no setting has to
say where, and whoever shares the interpreter shares the engines. Looked at by files
alone, for nothing of an engine is ever imported here.
"""

import sys
from pathlib import Path

from pilothouse.ports.engine import Environment, Installed


def environment(name: str) -> Path:
    return Path(sys.prefix) / "engines" / name


def python_of(name: str) -> str:
    return str(environment(name) / "bin" / "python")


def declared(name: str, *packages: str, exact: bool = False) -> Environment:
    """
    With the versions of `constraints/<name>.txt`: those of the last environment that was tried.

    Args:
        exact: That list is the environment: what its packages ask for beside it is left out.
    """
    constraints = Path(__file__).with_name("constraints") / f"{name}.txt"
    return Environment(
        folder=str(environment(name)), packages=packages, constraints=str(constraints), exact=exact
    )


def look(name: str, *, package: str, known: str) -> Installed:
    """
    Whether the environment is there, with that version of its main package.

    Args:
        known: The version that the driver was tested with; another one is refused.
    """
    command = f"pilothouse engine install {name}"
    found = list(environment(name).glob(f"lib/python*/site-packages/{package}-*.dist-info"))
    if not Path(python_of(name)).exists() or not found:
        return Installed(ok=False, missing=f"an environment with {package} {known}", install_command=command)
    version = found[0].name.removeprefix(f"{package}-").removesuffix(".dist-info")
    if version.partition("+")[0] != known:
        return Installed(
            ok=False,
            version=version,
            missing=f"{package} {known}, for {version} was never tried",
            install_command=command,
        )
    return Installed(ok=True, version=version)
