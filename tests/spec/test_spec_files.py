"""A file dropped into ``specs/good`` must probe; one in ``specs/bad`` must fail as it says.

Beside each bad spec stands a ``.txt`` with what standard error must hold, piece by piece, in this
order; a piece is a line.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.commands import Run
from helpers.places import SPECS

from gradprobe.spec.vocabulary import COMBINATORS, INITS

GOOD = sorted((SPECS / "good").glob("*.yaml"))
BAD = sorted((SPECS / "bad").glob("*.yaml"))


def stem(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", GOOD, ids=stem)
@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_good(run: Run, path: Path, level: str) -> None:
    result = run("probe", str(path), "--level", level, "--format", "json")
    assert result.code in (0, 1)
    assert result.err == ""
    report = json.loads(result.out)
    assert report["target"] == str(path)
    assert all(row["line"] is not None for row in report["rows"] if row["level"] == 0)
    assert {row["status"] for row in report["rows"]} == {"ok"}


@pytest.mark.parametrize("path", GOOD, ids=stem)
def test_good_as_text(run: Run, path: Path) -> None:
    result = run("probe", str(path))
    assert result.code in (0, 1)
    assert result.err == ""
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("path", GOOD, ids=stem)
def test_good_reads_back_as_the_same_network(run: Run, tmp_path: Path, path: Path) -> None:
    emitted = tmp_path / "emitted.yaml"
    assert run("probe", str(path), "--emit-spec", "-o", str(emitted)).code == 0
    assert run("probe", str(emitted), "--emit-spec").out == emitted.read_text(encoding="utf-8")
    reports = [
        json.loads(run("probe", str(file), "--format", "json").out) for file in (path, emitted)
    ]
    for report in reports:
        del report["target"]
        for entry in (*report["rows"], *report["findings"]):
            del entry["line"], entry["column"]
    assert reports[0] == reports[1]


@pytest.mark.parametrize("path", BAD, ids=stem)
def test_bad(run: Run, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.chdir(path.parent)
    result = run("probe", path.name)
    assert result.code == 2
    assert result.out == ""
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    assert expected
    assert expected[0].startswith(f"{path.name}:")
    position = 0
    for piece in expected:
        position = result.err.find(piece, position)
        assert position >= 0, (piece, result.err)
        position += len(piece)


def test_every_bad_spec_has_its_message_and_no_message_is_left_over() -> None:
    assert {p.stem for p in BAD} == {p.stem for p in (SPECS / "bad").glob("*.txt")}
    assert GOOD
    assert BAD


@pytest.mark.parametrize("words", [COMBINATORS, INITS], ids=["combinators", "inits"])
def test_every_word_stands_in_a_good_spec(words: dict[str, str]) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in GOOD)
    for word in words:
        assert f"{word}:" in text or f": {word}" in text, word
