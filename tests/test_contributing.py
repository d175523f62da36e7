"""CONTRIBUTING.md describes the house as it stands: its floors, one spec's way, what to touch."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from helpers.documents import ADDITIONS, rows_of
from helpers.places import ROOT, TESTS

PACKAGE = ROOT / "gradprobe"
WORD = re.compile(r"`([^`]+)`")
WAY = [
    (file.strip("`"), function.strip("`"), WORD.findall(handed))
    for file, function, handed in rows_of("| file | function | hands on |")
]
LIMITS = {
    "a rule": 1,
    "a format of the check": 2,
    "a source of targets": 2,
    "an activation": 2,
    "an option that reaches the measurement": 4,
    "a signal of the probability": 3,
}


def floors() -> list[list[str]]:
    """The floors of the import contract, each with its rooms."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [contract] = [c for c in config["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    return [
        sorted(room.strip().removeprefix("gradprobe.") for room in re.split("[:|]", floor))
        for floor in contract["layers"]
    ]


def test_the_floors_are_those_of_the_import_contract() -> None:
    told = rows_of("| floor | what comes in → what goes out | torch at import |")
    assert [sorted(WORD.findall(floor)) for floor, _, _ in told] == floors()
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    rooms |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert {room for floor in floors() for room in floor} == rooms


def imports_torch(path: Path) -> bool:
    """Whether a file imports torch at its head, types aside."""
    names: list[str | None] = []
    for node in ast.parse(path.read_text("utf-8")).body:
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return any(name and name.partition(".")[0] == "torch" for name in names)


def test_torch_is_imported_on_the_floors_that_say_so() -> None:
    for floor, _, torch in rows_of("| floor | what comes in → what goes out | torch at import |"):
        for room in WORD.findall(floor):
            files = [PACKAGE / f"{room}.py", *(PACKAGE / room).rglob("*.py")]
            having = {
                path.relative_to(PACKAGE).as_posix()
                for path in files
                if path.is_file() and imports_torch(path)
            }
            if torch == "yes" or room in WORD.findall(torch):
                assert having
            else:
                excepted = {file for file in WORD.findall(torch) if file.startswith(f"{room}/")}
                assert having == excepted


class Entered:
    """A profiler: the first call of each function of the way, with its arguments and its end."""

    def __init__(self) -> None:
        self.wanted = {(str(PACKAGE / file), function) for file, function, _ in WAY}
        self.order: list[tuple[str, str]] = []
        self.taken: dict[tuple[str, str], set[str]] = {}
        self.returned: dict[tuple[str, str], str] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        place = (frame.f_code.co_filename, frame.f_code.co_name)
        if place not in self.wanted:
            return
        if event == "call" and place not in self.taken:
            self.order.append(place)
            self.taken[place] = {type(value).__name__ for value in frame.f_locals.values()}
        if event == "return":
            self.returned[place] = type(argument).__name__


def test_a_spec_goes_the_way_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gradprobe.cli.main import main

    spec = tmp_path / "net.yaml"
    spec.write_text("input: {shape: [4]}\nlayers: [Linear: {out_features: 4}, Tanh]\n")
    entered, before = Entered(), sys.getprofile()
    sys.setprofile(entered)
    try:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["probe", str(spec)])
    finally:
        sys.setprofile(before)
    way = [(str(PACKAGE / file), function) for file, function, _ in WAY]
    assert entered.order == way
    assert len({file for file, _, _ in WAY}) == len(WAY) <= 8
    for (_, _, handed), following in zip(WAY[:-1], way[1:], strict=True):
        assert entered.taken[following] >= set(handed)
    assert [entered.returned[way[-1]]] == WAY[-1][2]
    assert "net.yaml" in capsys.readouterr().out


def test_what_to_touch_is_within_its_limits_and_shown_by_a_test() -> None:
    text = (TESTS / "test_additions.py").read_text("utf-8")
    tests = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    for what, (files, shown) in ADDITIONS.items():
        assert len(files) <= LIMITS[what]
        assert shown in tests
        new = [file for file in files if not (PACKAGE / file).exists()]
        assert len(new) <= 1
        assert all((PACKAGE / file).parent.is_dir() for file in new)
