"""The rows of published architectures, golden: names that a reader of each would recognise.

``tests/trees/`` has their modules as ``benchmarks/module_trees.py`` writes them; here
they are put together again without a number in them, and without the library that they are from.
``GRADPROBE_OVERWRITE=1 pytest tests/model/test_row_choice.py`` writes the golden files anew.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from gradprobe.model.rows import find_rows

TESTS = Path(__file__).resolve().parent.parent
TREES, GOLDEN = TESTS / "trees", TESTS / "golden" / "rows"
OVERWRITE = bool(os.environ.get("GRADPROBE_OVERWRITE"))
NAMES = sorted(path.stem for path in TREES.glob("*.txt"))


@cache
def kind(name: str, base: str) -> type[nn.Module]:
    torchs: type[nn.Module] = getattr(nn, base, None) or getattr(nn.modules.module, base)
    return torchs if name == base else type(name, (torchs,), {})


def planted(tree: str) -> nn.Module:
    modules: dict[str, nn.Module] = {}
    for line in tree.splitlines():
        path, name, base, *shapes = line.split("\t")
        of = kind(name, base)
        module = of.__new__(of)
        nn.Module.__init__(module)
        for index, shape in enumerate(" ".join(shapes).split()):
            numbers = torch.empty([int(n) for n in shape.split("x")], device="meta")
            module.register_parameter(f"p{index}", nn.Parameter(numbers))
        modules[path] = module
        parent, _, own = path.rpartition(".")
        if path != ".":
            modules[parent or "."]._modules[own] = module
    return modules["."]


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_are_those_that_a_reader_would_name(name: str) -> None:
    rows = find_rows(planted((TREES / f"{name}.txt").read_text("utf-8")))
    text = "".join(f"{row.name}  {row.kind}{'  block' * row.is_block}\n" for row in rows)
    if OVERWRITE:
        (GOLDEN / f"{name}.txt").write_text(text, "utf-8")
    assert text == (GOLDEN / f"{name}.txt").read_text("utf-8")
    held = [id(p) for row in rows for p in row.module.parameters()]
    assert len(held) == len(set(held))


def test_there_are_twenty_and_more() -> None:
    assert len(NAMES) >= 20


# ---- the same kinds in networks of another shape


def part(*layers: nn.Module, **children: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, child in {**{str(i): layer for i, layer in enumerate(layers)}, **children}.items():
        module.add_module(name, child)
    return module


def of(name: str, width: int, **children: nn.Module) -> nn.Module:
    """A block of a class of this name: two matrices."""
    module = part(one=nn.Linear(width, 2 * width), two=nn.Linear(2 * width, width), **children)
    module.__class__ = kind(name, "Module")
    return module


def stage(name: str, *layers: nn.Module, **children: nn.Module) -> nn.Module:
    module = part(blocks=nn.Sequential(*layers), **children)
    module.__class__ = kind(name, "Module")
    return module


MODELS: dict[str, tuple[nn.Module, str]] = {
    "a dictionary of layers": (
        part(a=nn.Linear(4, 4), layers=nn.ModuleDict({"low": of("B", 4), "high": of("B", 4)})),
        "a layers.low layers.high",
    ),
    "a dictionary that is a stage": (
        part(
            *[
                kind("Dense", "ModuleDict")({f"l{i}": of("B", width) for i in range(count)})
                for width, count in ((4, 2), (6, 3))
            ]
        ),
        "0.l0 0.l1 1.l0 1.l1 1.l2",
    ),
    "stages of several kinds": (
        part(
            stem=nn.Linear(3, 4),
            stages=nn.ModuleList(
                stage("Stage", nn.Linear(w - 2, w), of("A", w), of("B", w), pool=nn.MaxPool1d(1))
                for w in (4, 6, 8)
            ),
        ),
        "stem " + " ".join(f"stages.{i}.blocks.{j} stages.{i}.pool" * (j == 2)
                           or f"stages.{i}.blocks.{j}" for i in range(3) for j in range(3)),
    ),
    "many blocks in stages that are alike": (
        nn.Sequential(*[stage("Stage", *[of("B", 4) for _ in range(4)]) for _ in range(2)]),
        " ".join(f"{i}.blocks.{j}" for i in range(2) for j in range(4)),
    ),
    "layers with experts": (
        nn.Sequential(*[of("L", 4, experts=nn.ModuleList(of("E", 4) for _ in range(9)))] * 1,
                      of("L", 4, experts=nn.ModuleList(of("E", 4) for _ in range(9)))),
        "0 1",
    ),
    "attributes of one class, with lists of small layers inside": (
        part(
            nn.Linear(4, 4),
            *[of("Mixed", 4, branch=nn.Sequential(part(nn.Linear(4, 4)), part(nn.Linear(4, 4))))
              for _ in range(3)],
        ),
        "0 1 2 3",
    ),
    "a list of one beside others": (
        nn.Sequential(nn.Sequential(of("B", 4)), nn.Sequential(of("B", 6), of("B", 6))),
        "0.0 1.0 1.1",
    ),
    "losses and dropouts": (
        part(a=nn.Linear(4, 4), drop=nn.Dropout(0.1), b=nn.Linear(4, 4), c=nn.Linear(4, 4),
             criterion=nn.CrossEntropyLoss(), heads=nn.ModuleList([nn.MSELoss(), nn.Dropout2d()])),
        "a b c",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_blocks_however_they_are_held(name: str) -> None:
    model, expected = MODELS[name]
    assert [row.name for row in find_rows(model)] == expected.split()
