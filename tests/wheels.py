"""Makes wheels with whatever inside, for tests of what is taken out of them."""

import io
import zipfile
from collections.abc import Mapping

METADATA = "Metadata-Version: 2.4\nName: tiny-model\nVersion: 1.0\nLicense-Expression: MIT\n\nA model."


def make_wheel(files: Mapping[str, bytes], *, metadata: str = METADATA) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
    return target.getvalue()
