"""A project of one's own: the second command that is typed gives the first useful answer."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from helpers.commands import Run

TEXT = """\
import torch
from torch import nn


class TextModel(nn.Module):
    def __init__(self, layers=2, width=32, words=100):
        super().__init__()
        self.words = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(width, words)

    def forward(self, x):
        return self.head(self.body(self.words(x)))
"""
IMAGES = """\
from torch import nn


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class ImageModel(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.body = nn.Sequential(block(3, 8), block(8, 16), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source"), [("text", TEXT), ("images", IMAGES)])
def test_the_second_command_answers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / f"{name}.py").write_text(source)
    first = run("probe", f"src/{name}.py")
    assert first.code == 2
    [hint] = [line for line in first.err.splitlines() if line.startswith("hint: gradprobe ")]
    second = run(*shlex.split(hint.removeprefix("hint: gradprobe ")))
    assert second.code in (0, 1), second.err
    assert "inputs guessed: --input shape=" in second.out
    assert "reach" in second.out
    assert second.out.splitlines()[-1].strip()
