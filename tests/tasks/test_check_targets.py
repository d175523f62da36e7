"""``gradprobe check`` of what a configuration names: Python models, Hugging Face configurations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import Result, Run

from gradprobe.errors import InputError
from gradprobe.spec.network import CodeSpec
from gradprobe.tasks.check import target
from gradprobe.tasks.check.config import read

pytestmark = pytest.mark.usefixtures("forked_workers")

MODEL = """\
import pathlib

from torch import nn

pathlib.Path(__file__).with_name("ran").touch()


def rows(layers, kind):
    return [nn.Sequential(nn.Linear(8, 8), kind()) for _ in range(layers)]


class Deep(nn.Sequential):
    def __init__(self, layers=20):
        super().__init__(nn.Linear(8, 8), *rows(layers, nn.Sigmoid), nn.Linear(8, 4))
"""
CONFIG = """\
[tool.gradprobe]
deep = false
overfit = false

[[tool.gradprobe.targets]]
target = "mymodel:Deep"
path = "src"
inputs = {shape = [16, 8]}

[[tool.gradprobe.targets]]
target = "mymodel:Deep"
path = "src"
args = {layers = 1}
inputs = {shape = [16, 8]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GRADPROBE_ALLOW_CODE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mymodel.py").write_text(MODEL)
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    return tmp_path


def test_code_does_not_run_by_being_checked(run: Run, folder: Path) -> None:
    ended = run("check", "--output-format", "full")
    assert ended.code == 2
    assert "pyproject.toml:5:1: GP901 invalid\n" in ended.out
    assert "pyproject.toml:10:1: GP901 invalid\n" in ended.out
    assert "this target runs code: mymodel:Deep" in ended.out
    assert "--allow-code, or GRADPROBE_ALLOW_CODE=1" in ended.out
    assert not (folder / "src" / "ran").exists()
    ended = run("check", "mymodel:Deep")
    assert ended.code == 2
    assert "runs code: mymodel:Deep (--allow-code, or GRADPROBE_ALLOW_CODE=1" in ended.out


def checked() -> tuple[Result, bool]:
    """A check in a process of its own, and whether that imported torch."""
    program = (
        "import sys; from gradprobe.cli.main import main\n"
        "try: main(['check'])\n"
        "finally: print('TORCH', 'torch' in sys.modules, file=sys.stderr)"
    )
    environment = os.environ | {"GRADPROBE_ALLOW_CODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    result = Result(done.returncode, done.stdout, done.stderr)
    return result, "TORCH True" in done.stderr


@pytest.mark.slow
def test_cold_warm_and_changed(run: Run, folder: Path) -> None:
    ran = folder / "src" / "ran"
    cold = run("check", "--allow-code")
    assert cold.code == 1, cold.err
    assert cold.out.startswith("src/mymodel.py:12:1: GP101 vanishing: the gradient shrinks to ")
    assert cold.out.endswith("2 specs checked: 1 error\n")
    ran.unlink()
    warm, torch = checked()
    assert (warm.code, warm.out, torch, ran.exists()) == (1, cold.out, False, False)
    (folder / "src" / "mymodel.py").write_text(MODEL.replace("nn.Sigmoid", "nn.Identity"))
    changed = run("check", "--allow-code")
    assert ran.exists()
    assert changed.out != cold.out


def test_a_tree_that_is_checked_out_elsewhere_is_the_same() -> None:
    """Its results are in the cache that a CI job restores."""
    here, there, other = (
        target._identity(CodeSpec("a:b", path=os.path.join(tree, folder)), tree)
        for tree, folder in (("/x", "src"), ("/y/z", "src"), ("/x", "lib"))
    )
    assert here == there != other


@pytest.mark.slow
def test_two_targets_of_one_file_are_told_apart(run: Run, folder: Path) -> None:
    config = CONFIG.replace("layers = 1", "layers = 18")
    (folder / "pyproject.toml").write_text(config)
    document = json.loads(run("check", "--allow-code", "--output-format", "json").out)
    assert [target["path"] for target in document["targets"]] == [
        "mymodel:Deep",
        "mymodel:Deep(layers=18)",
    ]
    found = [entry for target in document["targets"] for entry in target["diagnostics"]]
    assert {entry["path"] for entry in found} == {"src/mymodel.py"}
    assert len({entry["fingerprint"] for entry in found}) == len(found) == 2
    run("check", "--allow-code", "--write-baseline", "known.json")
    assert run("check", "--allow-code", "--baseline", "known.json").code == 0


@pytest.mark.slow
def test_a_failure_stands_at_the_users_line(run: Run, folder: Path) -> None:
    (folder / "src" / "mymodel.py").write_text("def Deep(layers=2):\n    raise OSError('gone')\n")
    ended = run("check", "--allow-code")
    assert ended.code == 3
    assert ended.out.startswith("src/mymodel.py:2:")
    assert "OSError: gone" in ended.out


@pytest.mark.slow
def test_a_target_that_is_not_there_stands_where_the_configuration_names_it(
    run: Run, folder: Path
) -> None:
    (folder / "gradprobe.toml").write_text(
        'deep = false\n[[targets]]\ntarget = "mymodel:Dep"\npath = "src"\n'
        '[[targets]]\ntarget = "nothing:Deep"\n'
    )
    ended = run("check", "--allow-code", "--config", "gradprobe.toml")
    assert ended.code == 2
    found = [line.partition(": ")[0] for line in ended.out.splitlines()]
    assert found[:2] == ["gradprobe.toml:2:1", "gradprobe.toml:5:1"]


@pytest.mark.slow
def test_a_hugging_face_configuration(run: Run, folder: Path) -> None:
    pytest.importorskip("transformers")
    (folder / "conf").mkdir()
    body = {"model_type": "gpt2", "n_layer": 3, "n_embd": 16, "n_head": 2, "vocab_size": 50}
    (folder / "conf" / "config.json").write_text(json.dumps(body))
    (folder / "pyproject.toml").write_text(
        "[tool.gradprobe]\ndeep = false\noverfit = false\n[[tool.gradprobe.targets]]\n"
        'target = "conf/config.json"\nlayers = 1\nset = {n_embd = 8}\n'
    )
    ended = run("check")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "1 spec checked: all passed")
    assert run("check", "conf/config.json").code == 0
    assert run("check", "--isolated", "--no-deep", "--no-overfit", "residual").code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("targets = 3", r"expected tables: \[\[targets\]\]"),
        ("[[targets]]\npath = 'src'", "'target' is missing"),
        ("[[targets]]\ntarget = 'a:b'\ninput = 3", "unknown key 'input'"),
        ("[[targets]]\ntarget = 'a:b'\ninputs = {shape = []}", "inputs: a shape"),
        ("[[targets]]\ntarget = 'a:b'\ninputs = 'shape=8,4'", r"(?s)function.*or \{shape = \[8"),
        ("[[targets]]\ntarget = 'a:b'\ninputs = {shape = [2], dtype = 'int64'}", "needs 'high'"),
        ("[[targets]]\ntarget = 'a:b'\nargs = {when = 1979-05-27}", "none that JSON has"),
        ("[[targets]]\ntarget = 'a:b'\nmode = 'training'", "mode: train or eval"),
        ("[[targets]]\ntarget = 'a:b'\n[[targets]]\ntarget = 'a:b'", "stands twice"),
    ],
)
def test_an_entry_that_does_not_fit(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "gradprobe.toml"
    file.write_text(text + "\n")
    with pytest.raises(InputError, match=message):
        read(file)
