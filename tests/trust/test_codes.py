"""What is wrong is told in a sentence, in the right code, and speaks to no CI runner."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("name", ["torch", "multiprocessing", "yaml", "random"])
def test_no_module_of_the_working_directory_is_imported(folder: Path, name: str) -> None:
    Path(f"{name}.py").write_text("open('imported', 'w').close()\n")
    environment = {**os.environ, "PYTHONPATH": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "gradprobe", "check", "-j", "2"], env=environment, check=False
    )
    assert ended.returncode == 0
    assert not Path("imported").exists()
