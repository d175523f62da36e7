"""``gradprobe diff``: what changed, where two networks part first, and whether it got worse.

``GRADPROBE_OVERWRITE=1 pytest tests/tasks/test_diff.py`` writes the golden files anew.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers.commands import Run
from helpers.handmade import chain, finding, profile, report, row, with_reach
from helpers.places import GOLDEN
from jsonschema import validate

from gradprobe.measure.profile import RowStatus
from gradprobe.render.canvas import Style
from gradprobe.render.diff import render_text
from gradprobe.render.schema import output_schema
from gradprobe.tasks.check.baseline import worsened
from gradprobe.tasks.diff import difference, differences
from gradprobe.tasks.revisions import checked_out
from gradprobe.verdict.report import Severity, Verdict

SPEC = """\
name: a stack
input: {shape: [8]}
layers:
  - Linear: {out_features: 8}
  - repeat: {times: 6, layers: [Linear: {out_features: 8}, Tanh]}
  - Linear: {out_features: 4}
"""
NET = """\
from torch import nn

def net(layers=3):
    blocks = [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(layers)]
    return nn.Sequential(*blocks, nn.Linear(8, 4))
"""
CODE = ("--input", "shape=8,8", "--trusted-in-process")


def git(*words: str) -> str:
    own = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com"]
    done = subprocess.run([*own, *words], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two revisions, ``before`` and ``main``, in which Tanh became Sigmoid."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = tmp_path / "repository" / "nets"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    git("init", "-q", "-b", "main", "..")
    Path("net.yaml").write_text(SPEC)
    Path("net.py").write_text(NET)
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "before")
    for name in ("net.yaml", "net.py"):
        Path(name).write_text(Path(name).read_text().replace("Tanh", "Sigmoid"))
    Path("later.yaml").write_text(SPEC)
    git("add", ".")
    git("commit", "-q", "-m", "two")
    return folder


def left(folder: Path) -> list[str]:
    """What is left of worktrees: git's entries beside its own, and temporary folders."""
    trees = git("worktree", "list", "--porcelain").count("worktree ")
    return ["a worktree"] * (trees - 1) + [p.name for p in folder.parents[1].glob("gradprobe-*")]


def golden(name: str, text: str) -> None:
    file = GOLDEN / "diff" / name
    if os.environ.get("GRADPROBE_OVERWRITE"):
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_two_revisions_of_a_spec(run: Run, repository: Path, form: str) -> None:
    ended = run("diff", "--rev", "before..main", "net.yaml", "--format", form)
    assert (ended.code, ended.err) == (1, "")
    golden(f"revisions.{form}.txt", ended.out)
    assert left(repository) == []


def test_the_other_way_round_it_got_better(run: Run, repository: Path) -> None:
    ended = run("diff", "--rev", "main..before", "net.yaml", "--format", "json")
    assert (ended.code, ended.err) == (0, "")
    body = json.loads(ended.out)
    validate(body, output_schema("diff"))
    [only] = body["differences"]
    assert (only["before"]["verdict"], only["after"]["verdict"]) == ("vanishing", "healthy")
    assert only["parting"]["row"] == "1.0"
    assert body["worse"] is False
    assert run("diff", "--rev", "before..main", "net.yaml", "--exit-zero").code == 0


def test_one_revision_is_held_against_the_files_as_they_are(run: Run, repository: Path) -> None:
    assert "0 of 8 rows changed" in run("diff", "--rev", "main", "net.yaml").out
    Path("net.yaml").write_text(SPEC)
    ended = run("diff", "--rev", "main", "net.yaml")
    assert ended.code == 0
    assert "vanishing → healthy" in ended.out


def test_two_revisions_of_code(run: Run, repository: Path) -> None:
    ended = run("diff", "--rev", "before..main", "net.py:net", *CODE, "--arg", "layers=5")
    assert (ended.code, ended.err) == (1, "")
    assert "0.1  Tanh → Sigmoid" in ended.out
    assert left(repository) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("before..nowhere net.yaml", "--rev: no revision 'nowhere'"),
        ("--output=x..main net.yaml", "--rev: no revision '--output=x'"),
        ("before...main net.yaml", "two dots are expected"),
        ("before..main later.yaml", "at before: cannot read later.yaml"),
        ("before..main plain", "plain is the same at any revision"),
        ("before..main net.yaml net.yaml", "two targets or reports, or --rev A..B with one target"),
        ("before..main argparse:ArgumentParser", "gives an ArgumentParser"),
        ("before..main torch.nn:Identity --input shape=2,2", "no trainable parameters"),
        ("before..main torch.nn:Flatten", "at before: "),
    ],
)
def test_what_cannot_be_compared_is_told(
    run: Run, repository: Path, words: str, message: str
) -> None:
    first, *others = words.split()
    code = ["--trusted-in-process"] if ":" in words else []
    ended = run("diff", f"--rev={first}", *others, *code)
    assert ended.code == 2
    assert message in ended.err
    assert left(repository) == []


def test_code_from_elsewhere_would_be_the_same_at_any_revision(
    run: Run, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is installed, and not found from the folder, hides every change."""
    (tmp_path / "installed_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    ended = run("diff", "--rev", "before..main", "installed_net:net", *CODE)
    assert ended.code == 2
    assert "installed_net:net was not imported from this revision" in ended.err


def test_no_hook_of_the_repository_runs(run: Run, repository: Path) -> None:
    hook = repository.parent / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    hook.chmod(0o755)
    assert run("diff", "--rev", "main", "net.yaml").code == 0
    assert not (repository / "ran").exists()


def test_outside_of_a_repository(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    ended = run("diff", "--rev", "main", "net.yaml")
    assert ended.code == 2
    assert "git says: not a git repository" in ended.err


def test_what_git_says_first_is_told_with_what_it_advises(
    run: Run, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    ended = run("diff", "--rev", "main", "net.yaml")
    assert ended.code == 2
    assert "git says: detected dubious ownership in repository at" in ended.err
    assert "hint: git config --global --add safe.directory" in ended.err


def test_a_folder_may_have_any_name(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = repository.parent.with_name(os.fsdecode(b"r\xff"))
    repository.parent.rename(other)
    monkeypatch.chdir(other)
    with checked_out("main") as (before, after):
        assert (before.name, after.tree) == ("main", str(other))


def test_a_reach_that_is_gone_is_worse_by_no_number() -> None:
    healthy, dead = report(with_reach(0.5)), report(with_reach(0.0), verdict=Verdict.DEAD)
    assert difference(healthy, dead, 3.0).worse[-1] == "the reach was 0.500 and is 0"
    assert worsened(0.5, None, math.inf) == "the reach was 0.500 and is none"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_worktree(repository: Path, kind: signal.Signals) -> None:
    Path("net.py").write_text("import time\ntime.sleep(300)\n")
    git("commit", "-q", "-a", "-m", "slow")
    command = [sys.executable, "-m", "gradprobe", "diff", "--rev", "main..main", "net.py:net"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if left(repository):
            break
        time.sleep(0.1)
    assert left(repository)
    process.send_signal(kind)
    assert process.wait(60) == 128 + kind
    assert left(repository) == []


# ---- two reports


def test_two_reports_of_any_kind(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("plain", "--depth", "8", "--width", "8", "--format", "json")
    run("probe", *words, "-o", "old.json")
    run("probe", *words, "--activation", "sigmoid", "-o", "new.json")
    assert run("diff", "old.json", "new.json", "--html", "page.html").code == 1
    assert "Worse: the verdict was " in Path("page.html").read_text("utf-8")
    assert run("diff", "new.json", "old.json").code == 0
    same = run("diff", "old.json", "plain", "--depth", "8", "--width", "8")
    assert (same.code, same.out.splitlines()[-1]) == (0, "0 of 10 rows changed")
    everything = run("diff", "old.json", "old.json", "--all").out
    assert everything.count("as it was") == 10
    unused = run("diff", "old.json", "new.json", "--depth", "8")
    assert unused.code == 2
    assert "--depth" in unused.err


def test_files_of_several_reports_are_matched_by_target() -> None:
    old = [report(with_reach(1.0), target="a"), report(with_reach(0.5), target="b")]
    new = [report(with_reach(0.5), target="b"), report(with_reach(1e-9), target="a")]
    found = differences(old, new, 3)
    assert [d.after.target for d in found] == ["a", "b"]
    assert [bool(d.worse) for d in found] == [True, False]
    with pytest.raises(Exception, match="a is on one side alone"):
        differences(old, [new[0], report(with_reach(1.0), target="c")], 3)
    with pytest.raises(Exception, match="stands twice"):
        differences([old[0], old[0]], new, 3)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ((1.0, Verdict.HEALTHY, []), (1.0, Verdict.HEALTHY, []), []),
        ((0.5, Verdict.HEALTHY, []), (0.2, Verdict.HEALTHY, []), []),
        ((0.5, Verdict.HEALTHY, []), (0.1, Verdict.HEALTHY, []), ["5.00 times further"]),
        ((0.1, Verdict.HEALTHY, []), (0.5, Verdict.HEALTHY, []), []),
        ((1.0, Verdict.WEAK, []), (1.0, Verdict.DEAD, [finding()]), ["weak and is dead"]),
        ((1.0, Verdict.DEAD, []), (1.0, Verdict.WEAK, []), []),
        ((1.0, Verdict.DEAD, []), (1.0, Verdict.DEAD, [finding()]), ["was not there"]),
        ((1.0, Verdict.DEAD, [finding(row="1")]), (1.0, Verdict.DEAD, [finding(row="2")]), []),
        ((1.0, Verdict.WEAK, []), (1.0, Verdict.WEAK, [finding(Severity.WARNING)]), []),
        ((1.0, Verdict.WEAK, []), (1.0, Verdict.WEAK, [finding(ignored="meant")]), []),
    ],
)
def test_what_counts_as_worse(before: tuple, after: tuple, why: list[str]) -> None:
    old, new = (
        report(with_reach(reach), found, verdict) for reach, verdict, found in (before, after)
    )
    told = difference(old, new, 3).worse
    assert len(told) == len(why)
    assert all(part in line for part, line in zip(why, told, strict=True))


def test_rows_are_matched_by_name_and_noise_is_no_change() -> None:
    old = profile(row("a"), row("b"), row("c"), row("d"))
    new = profile(row("a"), row("c", 1.0005), row("x"), row("d", kind="ReLU"))
    found = difference(report(old), report(new), 3)
    assert [(c.row.name, c.what) for c in found.changed] == [
        ("b", ("removed",)),
        ("x", ("added",)),
        ("d", ("layer",)),
    ]


def test_they_part_on_the_way_forward_or_else_on_the_way_back() -> None:
    old = chain(1.0, 1.0, 1.0, 1.0)
    cut = chain(None, None, 1.0, 1.0)
    back = difference(report(old), report(cut), 3).parting
    assert back is not None
    assert (back.row, back.back) == (old.rows[1].name, True)
    rows = list(old.rows)
    rows[2] = rows[2]._replace(activation_rms=7.0)
    forward = difference(report(old), report(profile(*rows)), 3).parting
    assert forward is not None
    assert (forward.row, forward.what, forward.back) == (rows[2].name, ("output",), False)
    rows[1] = rows[1]._replace(status=RowStatus.NOT_RUN)
    uncalled = difference(report(old), report(profile(*rows)), 3).parting
    assert uncalled is not None
    assert uncalled.row == rows[1].name
    assert difference(report(old), report(old), 3).parting is None


@pytest.mark.parametrize("width", [40, 50, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    old = profile(*(row(f"encoder.layers.{i}.block", 1e-11 * 2**i) for i in range(60)))
    new = profile(*(r._replace(kind="Sigmoid", size=9, activation_rms=3.0) for r in old.rows))
    text = render_text([difference(report(old), report(new), 3)], Style(width), False)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("1.4e-17") == 2
    assert " layer, " in text
