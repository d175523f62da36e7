"""A bad input ends in exit 2 with one message, at the right place.

In a spec ``▲`` stands right before the place that the message must name and point at.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Result

HEAD = "input: {shape: [6]}\n"
TAIL = "layers: [Linear: {out_features: 4}]\n"
GOOD = HEAD + TAIL
LEAKY = HEAD + "layers:\n  - Linear: {out_features: 5}\n  - LeakyReLU: {negative_slope: ▲%s}\n"
WIDTH = HEAD + "layers:\n  - Tanh\n  - Linear: {bias: true, out_features: ▲%s}\n"
BIAS = HEAD + "layers: [Linear: {out_features: 4, bias: ▲%s}]\n"
NAME = HEAD + "layers:\n- sequential:\n  - Linear: {out_features: 4, name: ▲%s}\n"
IMAGE = "input: {shape: [3, 8, 8]}\n"
WORDS = "input: {shape: [5], tokens: 11}\n"
SEQUENCE = "input: {shape: [5, 6]}\n"
LONGEST_LINE = 400  # of a message: a word of a megabyte is not repeated whole
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


def clean(result: Result) -> None:
    """Exit 2 with nothing but a message of short lines, without a traceback or a raw escape."""
    assert result.code == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert "gradprobe: internal error" not in result.err
    assert not RAW.search(result.err)
    assert max(map(len, result.err.splitlines())) <= LONGEST_LINE
    assert result.err.endswith("\n")


def refused(result: Result, file: Path | str, spec: str, *words: str) -> None:
    """The message names the place of ``▲``, shows its line with a caret, and has ``words``."""
    clean(result)
    before = spec[: spec.index("▲")]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    first, *rest = result.err.splitlines()
    assert first.startswith(f"{file}:{line}:{column}: error: "), result.err
    for word in words:
        assert word in result.err, result.err
    source = spec.replace("▲", "").split("\n")[line - 1]
    if source.strip():
        shown, caret = rest[:2]
        assert shown.startswith(f"{line:>5} | ")
        assert re.fullmatch(" *\\^", caret)
        assert _at(shown, len(caret) - 1) == source[column - 1 :][:1].strip()


def _at(shown: str, cell: int) -> str:
    """What stands in a terminal's ``cell`` of a line; a wide character takes two cells."""
    position = 0
    for character in shown:
        if position == cell:
            return character.strip()
        position += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return ""


def told(result: Result, *words: str) -> None:
    """One message without a file position, with ``words``."""
    clean(result)
    assert result.err.startswith("gradprobe: error: "), result.err
    for word in words:
        assert word in result.err, result.err


def misused(result: Result, *words: str) -> None:
    """A usage error: which option, and what is wrong with it; a spec's word has a place in it."""
    clean(result)
    for word in ("error: ", *words):
        assert word in result.err, result.err


def cases(*rows: tuple[Any, ...]) -> Any:
    """``(id, first, *words)`` → parameters ``first, words``."""
    values = [pytest.param(first, words, id=name) for name, first, *words in rows]
    return pytest.mark.parametrize(("spec", "words"), values)
