"""
Finds the model that somebody wants to plan for: a file, a folder, this home's registry, or the catalogue.

Files are read by bounded processes, as at a pull. No server is needed.
"""

from pathlib import Path

from pilothouse.adapters.stores.glimpse import glimpse
from pilothouse.app.model_tools import inspect_file, inspect_folder
from pilothouse.config import Settings
from pilothouse.domain.capacity import Facts
from pilothouse.domain.catalogue import CATALOGUE
from pilothouse.domain.catalogue_shapes import shape_of
from pilothouse.domain.errors import NotFound
from pilothouse.domain.model_ref import find_version


def find_facts(model: str, settings: Settings) -> Facts:
    """
    Args:
        model: A path (with `file:`, a slash or as something that exists here), else a
            name in the home's registry, else one of the catalogue.

    Raises:
        NotFound: It is none of them.
        ModelFileRefused: The file is no model whose facts can be read.
    """
    path = Path(model.removeprefix("file:")).expanduser()
    if model.startswith("file:") or "/" in model or path.exists():
        return _of_path(path)
    facts = _of_registry(model, settings) or _of_catalogue(model)
    if facts is None:
        raise NotFound(
            f"{model!r} is no file, no model in the registry of {settings.home}, and not in the catalogue. "
            "fix: pilothouse model list, pilothouse model suggest --all, or give a path"
        )
    return facts


def _of_path(path: Path) -> Facts:
    if not path.exists():
        raise NotFound(f"there is no file or folder {path}. fix: check the path")
    if path.is_dir() or path.suffix == ".safetensors":
        found = inspect_folder(path if path.is_dir() else path.parent)
        return Facts(
            name=path.name, origin="file", format="safetensors", file_bytes=found.bytes, header=found.header
        )
    header = inspect_file(path.absolute())
    return Facts(name=path.name, origin="file", format="gguf", file_bytes=path.stat().st_size, header=header)


def _of_registry(name: str, settings: Settings) -> Facts | None:
    """What a deployment would mean by `name` or `name@stage`, else the newest of that name."""
    seen = glimpse(settings.database_file)
    if seen is None:
        return None
    if "@" in name:
        version = find_version(name, seen.spec.spec, seen.models)
    else:
        here = [one for one in seen.models if one.name == name]
        declared = seen.spec.spec.models.get(name)
        meant = [one for one in here if declared and one.source == declared.source]
        if not here:
            return None
        version = (meant or here)[0]
    return Facts(
        name=name,
        origin="registry",
        format=version.format,
        file_bytes=version.bytes,
        header=version.header,
    )


def _of_catalogue(name: str) -> Facts | None:
    model = next((one for one in CATALOGUE if one.name == name), None)
    if model is None:
        return None
    header = shape_of(model)
    if header is None:
        raise NotFound(
            f"the shape of {name!r} is not in the catalogue. fix: pilothouse model pull {model.source} "
            f"--name {name}, then plan again"
        )
    return Facts(
        name=name,
        origin="catalogue",
        format="gguf",
        file_bytes=model.bytes,
        header=header,
        is_approximate=True,
    )
