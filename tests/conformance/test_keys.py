from pathlib import Path

import pytest

from pilothouse.adapters.keys.file import FileKeys
from pilothouse.testing.conformance_keys import KeysConformance
from pilothouse.testing.memory_keys import MemoryKeys


class TestMemoryKeys(KeysConformance):
    @pytest.fixture
    def keys(self) -> MemoryKeys:
        return MemoryKeys()

    @pytest.fixture
    def others(self) -> MemoryKeys:
        return MemoryKeys()


class TestFileKeys(KeysConformance):
    @pytest.fixture
    def keys(self, tmp_path: Path) -> FileKeys:
        return FileKeys(tmp_path / "keys")

    @pytest.fixture
    def others(self, tmp_path: Path) -> FileKeys:
        return FileKeys(tmp_path / "others")
