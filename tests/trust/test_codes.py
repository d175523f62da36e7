"""What is wrong is told in a sentence, in the right code, and speaks to no CI runner."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.bad_inputs import clean
from helpers.commands import Run
from torch import nn

import gradprobe
from gradprobe.errors import without_commands

HOSTILE = ["::stop-commands::t", "##[error]x", "##vso[task]x", "##teamcity[x]"]
COMMAND = re.compile(r"^\s*::|##\[|##vso\[|##teamcity\[", re.MULTILINE)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_no_command_to_a_runner(run: Run, folder: Path, name: str) -> None:
    spec = Path("net.yaml").read_text().replace("8}", f'8, name: "{name}"}}', 1)
    Path("net.yaml").write_text(spec)
    Path(f"{name.replace('/', '')}.yaml").write_text("layers: [")
    for command in (
        ("probe", "net.yaml"),
        ("probe", "net.yaml", "--format", "json"),
        ("check",),
        ("check", f"{name}.yaml"),
        ("check", "--output-format", "full"),
        ("check", "--output-format", "json"),
        ("probe", f"{name}.yaml"),
    ):
        ended = run(*command)
        assert not COMMAND.search(ended.out + "\n" + ended.err), command
    assert json.loads(run("probe", "net.yaml", "--format", "json").out)["rows"][0]["name"] == name


def test_the_commands_of_the_github_format_are_commands(run: Run, folder: Path) -> None:
    Path("net.yaml").write_text("layers: [")
    assert run("check", "--output-format", "github").out.startswith("::error file=net.yaml")


def test_what_is_no_command_is_left_as_it_is() -> None:
    for text in ("a::b", "## heading", "#[x]", "a\n - b: c::d\n", ""):
        assert without_commands(text) == text


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(8, 3), (8,)),
        (nn.Sequential(nn.Identity(), nn.Linear(5, 5), nn.Linear(5, 2)), (5,)),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 1)), (3, 9)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), (3, 9, 9)),
    ],
)
def test_one_sample_is_no_batch(model: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(gradprobe.InputError, match="shape of one sample"):
        gradprobe.probe(model, torch.randn(shape))
    gradprobe.probe(model, torch.randn(4, *shape))


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_samples_that_are_single_numbers_are_told_so(run: Run, folder: Path, kind: str) -> None:
    np.save("d.npy", np.zeros(6, kind))
    clean(run("probe", "net.yaml", "--data", "d.npy"))


@pytest.mark.parametrize(
    "text",
    ['exclude = ["", "a"]', "regression = 1" + "0" * 400, "timeout = 1" + "0" * 5000,
     '[per-file-ignores]\n"/" = ["GP101"]', "a = " + "[" * 3000],
)  # fmt: skip
def test_a_configuration_that_no_reader_takes(run: Run, folder: Path, text: str) -> None:
    Path("gradprobe.toml").write_text(text + "\n")
    clean(run("check"))


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n"
    code += "from gradprobe.cli.main import main; main(['check'])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "gradprobe: error: the working directory is not there any more\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "multiprocessing", "yaml", "random"])
def test_no_module_of_the_working_directory_is_imported(folder: Path, name: str) -> None:
    Path(f"{name}.py").write_text("open('imported', 'w').close()\n")
    environment = {**os.environ, "PYTHONPATH": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "gradprobe", "check", "-j", "2"], env=environment, check=False
    )
    assert ended.returncode == 0
    assert not Path("imported").exists()


def test_a_report_of_several_threads_says_so(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sums end in other digits; by one thread they are the same everywhere."""
    configs = {}
    for work in (1 << 40, 0):
        monkeypatch.setattr("gradprobe.measure.undisturbed._SMALL_WORK", work)
        torch.set_num_threads(2)
        try:
            configs[work] = json.loads(run("probe", "net.yaml", "--format", "json").out)["config"]
        finally:
            torch.set_num_threads(1)
    assert configs[0].pop("threads") == 2
    assert configs[0] == configs[1 << 40]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ImportError("libx.so: failed to map segment"), 3, "a library cannot be loaded: libx.so"),
        (MemoryError(), 3, "there is not enough memory"),
        (OSError(errno.EMFILE, "Too many open files"), 3, "the system has no more to give: Too"),
        (OSError(errno.ENOSPC, "No space left"), 2, "cannot write: No space left"),
        (ImportError("x", name="gradprobe.x"), 3, "internal"),
    ],
)
def test_what_the_system_does_not_give_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("gradprobe.cli.app.app_for", fail)
    ended = run("rules")
    assert ended.code == code
    assert ended.err.startswith(f"gradprobe: {'internal ' if words == 'internal' else ''}error: ")
    assert words in ended.err


class Turn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 5, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(self.w.dtype) @ self.w).abs()


@pytest.mark.parametrize("options", [{"deep": True}, {"blocks": True}, {"overfit": True}])
def test_complex_weights_alone_have_a_verdict(options: dict[str, Any]) -> None:
    report = gradprobe.probe(nn.Sequential(Turn(), Turn(), Turn()), torch.randn(6, 5), **options)
    assert all(row.gradient_norm for row in report.rows)


@pytest.mark.parametrize("name", ["xla", "xla:0", "hpu", "meta", "cpu:x", "\u202excpu"])
def test_a_device_that_is_not_to_be_had(run: Run, folder: Path, name: str) -> None:
    ended = run("probe", "net.yaml", "--device", name)
    clean(ended)
    assert ended.err.startswith("gradprobe: error: --device")


@pytest.mark.parametrize(
    "words",
    [("-x",), ("probe", "net.yaml", "--seed"), ("check", "--jobs", "none"), ("paths",), ("::a",),
     ("compare", "net.yaml", "--colour"), ("schema", "specs"), ("check", "--shard", "3/2")],
)  # fmt: skip
def test_a_usage_error_begins_as_every_error_does(
    run: Run, folder: Path, words: tuple[str, ...]
) -> None:
    ended = run(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("gradprobe: error: ")


ACTION = (Path(__file__).parents[2] / "action.yml").read_text("utf-8")


@pytest.mark.skipif(not shutil.which("xargs"), reason="the action needs xargs")
@pytest.mark.parametrize(
    ("args", "paths", "words"),
    [
        ("--fail-on info", "a 'b c.yaml'", ["--fail-on", "info", "--", "a", "b c.yaml"]),
        ("", "$(touch ran) `touch ran`", ["--", "$(touch", "ran)", "`touch", "ran`"]),
        ("", "", ["--"]),
        ("", "specs 'a.yaml", None),
        ('--exclude "a', "specs", None),
        ("", 'it"s.yaml good.yaml', None),
    ],
)  # fmt: skip
def test_the_action_splits_its_words_as_a_shell_does_and_runs_none(
    folder: Path, args: str, paths: str, words: list[str] | None
) -> None:
    steps = yaml.safe_load(ACTION)["runs"]["steps"]
    Path("gradprobe").write_text('#!/bin/sh\nshift; for w; do echo "<$w>"; done\n')
    Path("gradprobe").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", steps[-1]["run"]], capture_output=True, text=True,
        env={"PATH": path, "ARGS": args, "PATHS": paths}, check=False,
    )  # fmt: skip
    assert not Path("ran").exists()
    if words is None:
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "a quote in args or paths is not closed" in ended.stderr
    else:
        assert ended.stdout.splitlines() == [f"<{word}>" for word in words]
