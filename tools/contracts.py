"""An import rule that import-linter has not; `contract_types` in pyproject.toml names it."""

from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class FamilyContract(Contract):
    """
    Members of a family are blind to each other; what they share stands in its underscore modules.

    A family is a package in `package`, a member a module or package in it. So a new
    member is a new file, and no list of who may import what grows with it.
    """

    package = fields.ModuleField()

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001, ARG002 - the library's
        package = self.package.name  # type: ignore[attr-defined]  # a field becomes its value
        wrong = sorted(
            (importer, imported)
            for importer in graph.find_descendants(package)
            for imported in graph.find_modules_directly_imported_by(importer)
            if imported.startswith(f"{package}.") and not _may_import(importer, imported, package)
        )
        return ContractCheck(kept=not wrong, metadata={"wrong": wrong})

    def render_broken_contract(self, check: ContractCheck) -> None:
        wrong: Any = check.metadata["wrong"]
        for importer, imported in wrong:
            output.print_error(f"{importer} must not import {imported}", bold=False)


def _may_import(importer: str, imported: str, package: str) -> bool:
    family, _, member = importer.removeprefix(f"{package}.").partition(".")
    other_family, _, other = imported.removeprefix(f"{package}.").partition(".")
    if other_family != family:
        return other_family.startswith("_")
    return other.startswith("_") or member.split(".")[0] == other.split(".")[0]
