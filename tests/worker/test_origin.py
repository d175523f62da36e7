"""Where code stands, and by which files a measurement of it is remembered."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

import gradprobe
from gradprobe.worker.origin import origin_of, unchanged


@pytest.mark.parametrize("below", [True, False])
def test_code_is_remembered_by_its_files_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    """An editable install lies outside of the folder that is checked."""
    tree, name = tmp_path / "tree", f"origin_{'below' if below else 'elsewhere'}"
    folder = tree / "src" if below else tmp_path / "other"
    for each in (tree, folder):
        each.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text("class Net:\n    pass\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    origin = origin_of([import_module(name).Net], str(tree))
    assert [file for file, _ in origin.files] == ([f"src/{name}.py"] if below else [])
    assert (origin.place is not None) == below
    files = [Path(file) for file, _ in (*origin.files, *origin.elsewhere)]
    package = Path(gradprobe.__file__).parent
    assert not any("site-packages" in f.parts or f.is_relative_to(package) for f in files)
    assert unchanged(origin, str(tree))
    (folder / f"{name}.py").write_text("class Net:\n    changed = True\n")
    assert not unchanged(origin, str(tree))
