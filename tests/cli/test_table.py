"""Every command with every kind of target: an answer, or the one sentence that says why not."""

from __future__ import annotations

import io
import json
import sys
from itertools import product
from pathlib import Path

import pytest
from helpers.commands import Result, Run
from helpers.projects import CONFIG, NET, SPEC

CODE = ("--input", "shape=8,8", "--trusted-in-process")
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stack": ("residual", ("--width", "8")),
    "spec": ("net.yaml", ()),
    "stdin": ("-", ()),
    "name": ("net:Net", CODE),
    "file": ("net.py:Net", CODE),
    "config": ("config.json", ()),
}
EXTRA = {
    ("fix", ""): ("--seeds", "1"),
    ("sweep", "stack"): ("--depth", "2,3"),
    ("sweep", "spec"): ("--depth", "2,3"),
    ("sweep", "stdin"): ("--depth", "2,3"),
    ("sweep", "name"): ("--arg", "layers=2,3"),
    ("sweep", "file"): ("--arg", "layers=2,3"),
    ("sweep", "config"): ("--layers", "1,2"),
}
COMMANDS = ("probe", "block", "paths", "compare", "sweep", "fix")


@pytest.fixture
def ask(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command on a kind of target, in a folder that holds them all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "net.yaml").write_text(SPEC)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))

    def call(command: str, kind: str, *options: str) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SPEC.encode())))
        target, own = TARGETS[kind]
        return run(command, target, *own, *options)

    return call


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_every_kind(ask: Run, command: str, kind: str) -> None:
    if kind == "config":
        pytest.importorskip("transformers")
    extra = (*EXTRA.get((command, ""), ()), *EXTRA.get((command, kind), ()))
    ended = ask(command, kind, *extra)
    assert ended.code in (0, 1), ended.err
    assert (bool(ended.out), ended.err) == (True, "")


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k == "name" else []) for k in TARGETS]
)
def test_check_takes_every_kind(ask: Run, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "config":
        pytest.importorskip("transformers")
    target, _ = TARGETS[kind]
    monkeypatch.setitem(TARGETS, kind, (target, ("--allow-code", "--no-deep", "--no-overfit")))
    ended = ask("check", kind, "--no-cache")
    assert (ended.code, ended.err) == (0, ""), ended.out
    assert ended.out == "1 spec checked: all passed\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_report_is_for_comparing(run: Run, tmp_path: Path, command: str) -> None:
    report = tmp_path / "report.json"
    assert run("probe", "plain", "--depth", "3", "--format", "json", "-o", report).code == 0
    ended = run(command, str(report))
    if command == "compare":
        assert ended.code == 0, ended.err
        return
    assert ended.code == 2
    assert "is an earlier report, which holds no network" in ended.err
    assert "gradprobe compare" in ended.err


# ---- options: an effect, or a refusal

EFFECTS: dict[str, tuple[tuple[str, ...], str]] = {
    "depth": (("--depth", "4"), "stack"),
    "width": (("--width", "9"), "stack"),
    "activation": (("--activation", "relu"), "stack"),
    "init": (("--init", "zeros"), "stack"),
    "norm": (("--norm", "layer"), "stack"),
    "zero-init": (("--zero-init",), "stack"),
    "arg": (("--arg", "layers=2"), "name file"),
    "eval-mode": (("--eval-mode",), "name file config"),
    "path": (("--path", "."), "name file"),
    "inputs": (("--inputs", "net:batch"), "name file"),
    "layers": (("--layers", "1"), "config"),
    "set": (("--set", "n_embd=8"), "config"),
    "seed": (("--seed", "1"), "stack spec stdin name file config"),
    "batch-size": (("--batch-size", "4"), "stack spec stdin config"),
    "dtype": (("--dtype", "bfloat16"), "stack spec stdin name file config"),
    "loss": (("--loss", "cross_entropy"), "stack spec stdin name file config"),
    "level": (("--level", "leaves"), "stack spec stdin name file config"),
    "blocks": (("--blocks",), "stack spec stdin name file config"),
    "theory": (("--theory",), "stack spec stdin"),
    "rows": (("--rows", "*"), "name file config"),
    "deep": (("--deep",), "stack spec stdin name file config"),
    "max-parameters": (("--max-parameters", "9"), "stack spec stdin config"),
    "timeout": (("--timeout", "9"), "name file"),
}
SILENT = {
    "path",
    "timeout",
    "eval-mode",
    "inputs",
    "rows",
}  # the same numbers: here nothing else could be
FAST = {"stack", "spec", "name"}


@pytest.mark.parametrize("option", EFFECTS)
@pytest.mark.parametrize("kind", ["stack", "spec", "name", "config"])
def test_an_option_has_an_effect_or_is_refused(ask: Run, kind: str, option: str) -> None:
    words, kinds = EFFECTS[option]
    if kind not in kinds.split():
        ended = ask("probe", kind, *words)
        assert (ended.code, ended.out) == (2, "")
        flag = "--train-mode" if option == "eval-mode" else words[0]
        assert f"{flag} is for " in ended.err
        assert f"no effect on {TARGETS[kind][0]}, " in ended.err
        assert "\nhint: " in ended.err
    elif kind in FAST and option not in SILENT:
        ended = ask("probe", kind, *words)
        assert ended.out != ask("probe", kind).out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        *product(["block", "paths", "compare", "sweep", "fix"], ["stack", "spec"]),
        *product(["block", "paths", "compare"], ["name"]),
    ],
)
def test_an_option_changes_what_a_command_prints_or_is_refused(
    ask: Run, command: str, kind: str
) -> None:
    extra = (*EXTRA.get((command, ""), ()), *EXTRA.get((command, kind), ()))
    extra += ("--format", "json")  # every digit
    plain = ask(command, kind, *extra)
    assert plain.code in (0, 1), plain.err
    unseen = []
    for option, (words, kinds) in EFFECTS.items():
        if kind in kinds.split() and words[0] not in extra:
            ended = ask(command, kind, *extra, *words)
            if ended.code != 2 and ended.out == plain.out and option not in SILENT:
                unseen.append(option)
    assert unseen == []
