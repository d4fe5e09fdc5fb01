"""
Code of ours that runs inside a model server, as files beside its model.

Belongs here: what is copied, and under which names. Does not: what each server is
told about it. Servers import it as `pilothouse_model`.
"""

from pathlib import Path

PACKAGE = "pilothouse_model"
MODULES = ("_batch", "_generator", "_stops")


def generator_files(packages: str = "") -> dict[str, str]:
    """
    Text by path, for `Launch.files`: a package that needs torch and transformers alone.

    Args:
        packages: Folder with these two, for a server whose interpreter does not look there.
    """
    init = f"import sys\n\nsys.path.insert(0, {packages!r})\n" if packages else ""
    beside = Path(__file__).parent
    files = {f"{name}.py": (beside / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    return {f"{PACKAGE}/{path}": text for path, text in {"__init__.py": init, **files}.items()}
