"""The specs of docs/howto/use-open-inference-protocol.md are read as the program reads them."""

import re
from pathlib import Path

import pytest

from pilothouse.config import read_spec
from pilothouse.domain.speccheck import check_spec
from spec_trees import ENGINES

GUIDE = (Path(__file__).parents[2] / "docs" / "howto" / "use-open-inference-protocol.md").read_text()
SPECS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_of_the_guide_is_one(spec: str) -> None:
    check_spec(read_spec(spec.encode()), engines=ENGINES, targets=["local"])
