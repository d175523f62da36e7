"""The scripts of benchmarks/ take from the package what is there. Nothing is run: no torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from helpers.places import ROOT

SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))


def names_in(body: list[ast.stmt]) -> set[str]:
    """What a file's statements define, those under an ``if`` too."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            targets = [name for target in node.targets for name in ast.walk(target)]
            names |= {name.id for name in targets if isinstance(name, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.If):
            names |= names_in(node.body)
    return names


def has(module: str, name: str) -> bool:
    """Whether ``module`` of the package has ``name``: a definition, or a file of that name."""
    place = ROOT.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if (place / f"{name}.py").is_file():
        return True
    return file.is_file() and name in names_in(ast.parse(file.read_text("utf-8")).body)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_imports_what_the_package_has(script: Path) -> None:
    imports = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(script.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradprobe.")
        for alias in node.names
    ]
    assert [f"{module}.{name}" for module, name in imports if not has(module or "", name)] == []


def test_what_is_not_there_is_missed() -> None:
    """The proof can fail."""
    assert has("gradprobe.model.make", "make")
    assert has("gradprobe.verdict", "calibration")
    assert not has("gradprobe.model.make", "made")
    assert not has("gradprobe.check", "load_target")
