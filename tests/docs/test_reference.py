"""The reference is what the code says, and names everything that users rely on."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from pilothouse.domain import errors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(generate: ModuleType) -> None:
    stale = [
        name for name, text in generate.pages().items() if (DOCS / "reference" / name).read_text() != text
    ]

    assert not stale, f"run `make docs`: {stale}"


def test_every_error_code_is_explained(generate: ModuleType) -> None:
    codes = {
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PilothouseError)
    }

    assert codes <= generate.MEANINGS.keys()


def test_every_setting_of_the_server_is_explained() -> None:
    page = (DOCS / "reference" / "configuration.md").read_text()
    section = page.split("### Settings")[1].split("###")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", section, re.MULTILINE)

    assert len(rows) > 20
    assert not [name for name, meaning in rows if not meaning.strip()]


def test_every_link_between_documents_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())]
    broken = [
        f"{page.relative_to(ROOT)} -> {link}"
        for page, link in links
        if "://" not in link and not (page.parent / link).exists()
    ]

    assert not broken
