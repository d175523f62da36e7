"""The help, its examples, and what is said to somebody who types half a command."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from helpers.commands import Run
from helpers.projects import SPEC

from gradprobe.cli.app import COMMANDS
from gradprobe.cli.examples import EXAMPLES

NET = """\
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return x + self.inner(x).tanh()


class Net(nn.Module):
    def __init__(self, layers=3):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.blocks = nn.Sequential(*[Block() for _ in range(layers)])
        self.head = nn.Linear(8, 4)

    def forward(self, ids):
        return self.head(self.blocks(self.embed(ids)))


def make_net(layers=2):
    return Net(layers)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for place in ("src", "nets"):
        (tmp_path / place).mkdir()
    (tmp_path / "src" / "model.py").write_text(NET)
    for name in ("net.yaml", "nets/net.yaml"):
        (tmp_path / name).write_text(SPEC)
    (tmp_path / "weights.pt").write_bytes(b"PK")
    return tmp_path


@pytest.mark.parametrize("width", ["40", "80", "140"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_is_cut(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, width: str
) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, width)
    ended = run(command, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert not [line for line in ended.out.splitlines() if "--" in line and "…" in line]
    assert command in ("schema", "rules") or "\nOutput:\n" in ended.out
    body, _, examples = ended.out.partition("Examples:")
    assert examples
    wide = [line for line in body.splitlines() if len(line) > int(width)]
    assert [line for line in wide if "|" not in line] == []  # the words of an option are one word
    assert width == "40" or not wide
    assert all(line.split()[-1] in ended.out for line in EXAMPLES[command])
    assert run("help", command).out == ended.out


@pytest.mark.parametrize("width", ["40", "80"])
def test_no_command_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, width)
    ended = run("--help")
    assert "..." not in ended.out.partition("Commands:")[2]
    assert max(map(len, ended.out.splitlines())) <= int(width)


@pytest.mark.slow
@pytest.mark.parametrize("example", [e for c in EXAMPLES if c != "run" for e in EXAMPLES[c]])
def test_the_examples_hold(run: Run, folder: Path, example: str) -> None:
    """Those of scripts aside, which tests/tasks/test_script.py runs."""
    run("probe", "plain", "--depth", "3", "--format", "json", "-o", "before.json")
    for part in (1, 2) if "merge" in example else ():
        run("check", "net.yaml", "--shard", f"{part}/2", "-o", f"json=part{part}.json")
    if "--rev" in example:
        own = "-c user.name=A -c user.email=a@example.com"
        for command in ("init -q -b main", "add .", f"{own} commit -q -m one"):
            subprocess.run(["git", *command.split()], check=True)
    words = shlex.split(example.partition(" > ")[0])[1:]
    assert run(*words).code in (0, 1)


def test_a_target_without_a_command(run: Run, folder: Path) -> None:
    for word in ("net.yaml", "plain", "src/model.py:Net", "model:Net", "-"):
        ended = run(word, "--all")
        assert (ended.code, ended.out) == (2, "")
        assert f"hint: gradprobe probe {word} --all\n" in ended.err
    assert "no such command" in run("prob", "net.yaml").err.lower()


def test_a_file_of_code_lists_its_models(run: Run, folder: Path) -> None:
    ended = run("probe", "src/model.py")
    assert ended.code == 2
    for name in ("Block", "Net", "make_net"):
        assert f"gradprobe probe src/model.py:{name}" in ended.err
    assert "holds weights" in run("probe", "weights.pt").err
    assert "holds weights" in run("check", "weights.pt").out
    assert "gradprobe check nets checks every spec" in run("probe", "nets").err
    assert "the target's name is empty" in run("probe", "").err
    assert "there is none: --overfit" in run("probe", "plain", "--overfit-time", "3").err


def test_the_second_command_is_the_first_answer(run: Run, folder: Path) -> None:
    """What a newcomer types: the file, and then what the hint says."""
    hint = run("probe", "src/model.py").err.splitlines()[-1]
    command = next(part for part in hint.split(";") if part.endswith(":Net"))
    words = shlex.split(command.removeprefix("hint:"))[1:]
    ended = run(*words, "--trusted-in-process")
    assert (ended.code, ended.err) == (0, "")
    assert "\ninputs guessed: --input shape=8,64/dtype=int64/high=50, by Embedding" in ended.out
    assert "\nhealthy: the gradient that reaches the first layer is " in ended.out


# ---- formats


def test_block_and_rules_have_json(run: Run, folder: Path) -> None:
    body = json.loads(run("block", "net.yaml", "--format", "json").out)
    assert (body["name"], body["residual"]) == ("1.1", True)
    assert body["jacobian"]["highway"]["value"] == pytest.approx(1, abs=0.5)
    rules = json.loads(run("rules", "--format", "json").out)["rules"]
    assert {"GP101", "GP403"} <= {rule["code"] for rule in rules}
    assert len(json.loads(run("rules", "GP101", "--format", "json").out)["rules"]) == 1


def test_tables_have_csv_and_markdown(run: Run, folder: Path) -> None:
    lines = run("probe", "net.yaml", "--format", "csv").out.splitlines()
    assert lines[0].startswith("target,row,kind,level,status,reach,gradient_norm")
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "1.0", "1.1", "1.2", "2"]
    asked = ("--blocks", "--theory", "--precision", "--format", "csv")
    head, *_, last = run("probe", "net.yaml", *asked).out.splitlines()
    assert head == lines[0] + ",factor,theory,highway,branch,gain,float16,bfloat16,float8,scale"
    assert last.count(",") == head.count(",")
    both = run("compare", "net.yaml", "plain", "--depth", "3", "--format", "csv").out.splitlines()
    assert {line.split(",")[0] for line in both[1:]} == {"net.yaml", "plain"}
    swept = run("sweep", "plain", "--depth", "2,3", "--format", "csv").out.splitlines()
    assert swept[0] == "target,depth,reach,verdict"
    assert [line.split(",")[1] for line in swept[1:]] == ["2", "3"]
    assert run("probe", "net.yaml", "--format", "markdown").out.startswith("| row | net")


def test_quiet_prints_nothing(run: Run, folder: Path) -> None:
    for words in (("probe", "net.yaml"), ("rules",), ("block", "net.yaml")):
        ended = run(*words, "-q")
        assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert run("probe", "net.yaml", "-q", "-v").code == 2


def test_the_completion_can_be_installed(run: Run) -> None:
    ended = run("--help")
    assert "--install-completion" in ended.out
    assert "--show-completion" in ended.out
