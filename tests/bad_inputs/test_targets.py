"""Targets that are not there, and standard input."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_inputs import GOOD, HEAD, clean, refused, told
from helpers.commands import Run

from gradprobe.spec.network import is_target


@pytest.mark.parametrize(
    ("target", "words"),
    [
        pytest.param("net.yml", ("net.yml", "did you mean 'net.yaml'?"), id="target-near"),
        pytest.param("nothing", ("nothing",), id="target-missing"),
        pytest.param("far.yaml", ("directory\n",), id="target-nothing-near"),
        pytest.param("nowhere/net.yaml", ("nowhere/net.yaml",), id="target-missing-directory"),
        pytest.param("net.yaml/net.yaml", ("net.yaml/net.yaml",), id="target-file-for-directory"),
        pytest.param("*.json", ("*.json",), id="target-glob-of-nothing"),
        pytest.param("specs/**/*.yaml", ("specs/**/*.yaml",), id="target-deep-glob-of-nothing"),
        pytest.param("dangling.yaml", ("dangling.yaml",), id="target-dangling-link"),
        pytest.param("loop.yaml", ("loop.yaml",), id="target-loop-of-links"),
        pytest.param("", ("empty",), id="target-empty-name"),
        pytest.param(".", ("directory",), id="target-directory"),
        pytest.param("a b", ("gradprobe check 'a b' checks",), id="target-folder-with-a-blank"),
        pytest.param("x" * 5000, ("cannot read xxx",), id="target-long-name"),
        pytest.param("x" * 300 + ".py:Net", ("no file xxx",), id="target-long-script"),
        pytest.param("x" * 300 + ".py", ("cannot read xxx",), id="target-long-file"),
        pytest.param("a\0b", (r"a\x00b",), id="target-nul"),
        pytest.param("\x1b[31m.yaml", (r"\x1b[31m.yaml",), id="target-escape"),
        pytest.param("\udcff.yaml", (r"\udcff.yaml",), id="target-not-utf-8"),
        pytest.param("plian", ("plian", "did you mean 'plain'?"), id="target-stack"),
    ],
)
@pytest.mark.parametrize("command", ["probe", "compare"])
def test_targets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, target: str,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(GOOD)
    Path("dangling.yaml").symlink_to("gone.yaml")
    Path("loop.yaml").symlink_to("loop.yaml")
    Path("a b").mkdir()
    told(run(command, target), *words)
    if command == "compare":
        told(run(command, "net.yaml", target), *words)
        told(run(command, target, "plain"), *words)


def test_a_module_s_name_may_be_longer_than_a_file_s() -> None:
    assert is_target("x" * 5000 + ":Net")


@pytest.mark.parametrize("name", ["gone.npy", "gone.npz", "gone.safetensors", "x/y.npy", "d.npy"])
def test_data(probe: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "d.npy").mkdir()
    told(probe(GOOD, "--data", str(tmp_path / name)), name)


class Endless(io.RawIOBase):
    """Zeros without end, and how many of them were read."""

    count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.count += len(buffer)
        buffer[:] = b"#" * len(buffer)
        return len(buffer)


def give(monkeypatch: pytest.MonkeyPatch, stream: io.RawIOBase | io.BytesIO) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param("▲", ("empty",), id="no-bytes"),
        pytest.param("▲\n\n", ("empty",), id="blank"),
        pytest.param(HEAD + "layers: [▲Rleu]\n", ("ReLU",), id="spec"),
    ],
)
def test_standard_input(
    run: Run, monkeypatch: pytest.MonkeyPatch, spec: str, words: tuple[str, ...]
) -> None:
    for command in ("probe", "compare"):
        give(monkeypatch, io.BytesIO(spec.replace("▲", "").encode()))
        refused(run(command, "-"), "<stdin>", spec, *words)


def test_endless_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Endless()
    give(monkeypatch, endless)
    result = run("probe", "-")
    clean(result)
    assert "too large" in result.err
    assert endless.count < 2**21


@pytest.mark.parametrize("targets", [("-", "-"), ("-", "plain", "-"), ("plain", "-", "-", "-")])
def test_standard_input_twice(
    run: Run, monkeypatch: pytest.MonkeyPatch, targets: tuple[str, ...]
) -> None:
    give(monkeypatch, io.BytesIO(GOOD.encode()))
    told(run("compare", *targets), "standard input", "once")
