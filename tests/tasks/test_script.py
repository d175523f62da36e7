"""``gradprobe run``: real training scripts, run as a user runs them."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import clients
from helpers.handmade import chain, report
from helpers.places import ROOT

SLOW = pytest.mark.slow

NET = """
import sys
import torch
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
x, y = torch.randn(64, 4), torch.randint(2, (64,))
"""

PLAIN = (
    NET
    + """
if __name__ == "__main__":
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(5):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        if step == 0:
            named = dict(net.named_parameters())
            grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True)
            print({name: float(g.norm()) for name, g in zip(named, grads)})
        loss.backward()
        optimizer.step()
        print("step", step, sys.argv[1:])
"""
)

CLIENT = NET + "oracle = ended = lambda *nets: None\n"

COMPILED = (
    NET
    + """
net = torch.compile(net)
optimizer = torch.optim.AdamW(net.parameters())
for step in range(3):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
"""
)

SWALLOWS = (
    NET
    + """
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for step in range(10_000):
    try:
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    except BaseException:
        pass
"""
)

PARALLEL = (
    NET
    + """
torch.distributed.init_process_group("gloo")
net = nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.AdamW(net.parameters())
for step in range(3):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
"""
)


def run(
    folder: Path, text: str, *options: str, arguments: tuple[str, ...] = (), of: str = ""
) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(text)
    launcher = ["-m", *of.split()] if of else []
    command = [sys.executable, *launcher, "-m", "gradprobe", "run", *options, "train.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def norms(report: dict[str, Any]) -> dict[str, float]:
    """By the row's name, over its parameters, of the rows that hold some."""
    rows = [row for row in report["rows"] if row["weight_gradient_norm"] is not None]
    return {row["name"]: row["weight_gradient_norm"] for row in rows}


@pytest.mark.slow
def test_a_plain_loop_stops_at_its_first_step(tmp_path: Path) -> None:
    done = run(tmp_path, PLAIN, "--format", "json", arguments=("--epochs", "3"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["target"] == "train.py, step 1"
    assert report["verdict"] == "healthy"
    own = json.loads(done.stderr.splitlines()[0].replace("'", '"'))
    rows = {n: math.hypot(own[f"{n}.weight"], own[f"{n}.bias"]) for n in norms(report)}
    assert norms(report) == pytest.approx(rows, rel=1e-6)
    assert "step 0" not in done.stderr


@SLOW
def test_several_steps_are_columns_and_the_script_runs_until_the_last(tmp_path: Path) -> None:
    done = run(tmp_path, PLAIN, "--steps", "1,3", arguments=("a",))
    assert done.returncode == 0, done.stderr
    assert "train.py, step 1" in done.stdout
    assert "train.py, step 3" in done.stdout
    assert "step 1 ['a']" in done.stderr
    assert "step 2 ['a']" not in done.stderr


TWO = (
    NET
    + """
head = nn.Linear(2, 2)
of_net, of_head = torch.optim.SGD(net.parameters(), 0.1), torch.optim.Adam(head.parameters())
for step in range(3):
    nn.functional.cross_entropy(head(net(x).detach()), y).backward()
    of_head.step()
    nn.functional.cross_entropy(head(net(x)), y).backward()
    of_net.step()
"""
)


@SLOW
def test_of_several_optimizers_a_report_says_which_and_whose_steps_stand_together(
    tmp_path: Path,
) -> None:
    done = run(tmp_path, TWO, "--steps", "1,2", "--format", "json", "--no-deep")
    assert done.returncode == 0, done.stderr
    titles = [report["target"].partition(", ")[2] for report in json.loads(done.stdout)["reports"]]
    assert titles == [f"step {n} of {of}" for of in ("SGD (0)", "Adam (1)") for n in (1, 2)]


@SLOW
def test_files_lie_where_the_command_was_given_also_of_a_script_that_goes_elsewhere(
    tmp_path: Path,
) -> None:
    away = "import os; os.mkdir('away'); os.chdir('away')\n"
    done = run(tmp_path, away + PLAIN, "-o", "out.txt", "--emit-inputs", "batch.safetensors")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"out.txt", "batch.safetensors"}
    assert not list((tmp_path / "away").iterdir())


@SLOW
def test_what_cannot_be_written_is_no_fault_of_the_scripts(tmp_path: Path) -> None:
    done = run(tmp_path, PLAIN, "-o", "missing/report.txt")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("gradprobe: error: cannot write missing/")
    assert "Traceback" not in done.stderr


@SLOW
@pytest.mark.parametrize(
    ("text", "rows"),
    [
        pytest.param(CLIENT + clients.LIGHTNING, 5, id="lightning"),
        pytest.param(CLIENT + clients.TRAINER, 7, id="trainer"),
        pytest.param(CLIENT + clients.ACCELERATE, 5, id="accelerate"),
        pytest.param(COMPILED, 5, id="compiled"),
        pytest.param(SWALLOWS, 5, id="swallows"),
    ],
)
def test_a_real_client_is_measured_without_a_change_to_it(
    text: str, rows: int, tmp_path: Path
) -> None:
    done = run(tmp_path, text, "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "healthy"
    assert len(report["rows"]) == rows
    assert not any(p.startswith(("module.", "_orig_mod.")) for p in norms(report))
    if clients.TRAINER in text:
        assert "the last of 2 backward passes is shown" in done.stderr


@SLOW
def test_under_torchrun_one_process_speaks(tmp_path: Path) -> None:
    launcher = "torch.distributed.run --nproc-per-node 2"
    done = run(tmp_path, PARALLEL, of=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("healthy") == 1


@SLOW
def test_a_process_that_dies_ends_the_others_in_3(tmp_path: Path) -> None:
    """Without torchrun, whose own exit code is 1; its last lines say which was the first."""
    dying = "import os\nif os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\nnet = nn.parallel"
    (tmp_path / "train.py").write_text(PARALLEL.replace("net = nn.parallel", dying))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    own = {"PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    command = [sys.executable, "-m", "gradprobe", "run", "train.py"]
    started = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | own | {"MASTER_PORT": port, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [3, -9]
    assert "error: train.py, rank 0: " in ended[0][1]
    assert "hint: another process of the job has ended" in ended[0][1]
    assert ended[0][0] == ""


@SLOW
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ValueError('boom')", "ValueError: boom"),
        ("print('hello')", "it ended before an optimizer"),
        ("import sys; sys.exit(5)", "it exited with 5"),
        (NET + "net(x)", "seen: Sequential ran, backward() was called 0 times"),
    ],
)
def test_a_script_without_a_step_ends_in_3(text: str, said: str, tmp_path: Path) -> None:
    done = run(tmp_path, text)
    assert done.returncode == 3
    assert said in done.stderr


@SLOW
def test_an_option_behind_the_script_is_told_where_it_belongs(tmp_path: Path) -> None:
    text = "import argparse; argparse.ArgumentParser().parse_args()"
    done = run(tmp_path, text, arguments=("--steps", "1,2"))
    assert done.returncode == 3
    assert done.stderr.endswith("gradprobe's options stand before it\n")


@SLOW
def test_a_module_runs_as_python_m_does(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "nets.py").write_text(NET)
    relative = "from .nets import *\n" + PLAIN.removeprefix(NET)
    (tmp_path / "pkg" / "__main__.py").write_text(relative)
    command = [sys.executable, "-m", "gradprobe", "run", "-m", "pkg", "--lr", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "healthy" in done.stdout


def test_a_step_that_never_came_is_said(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from gradprobe.measure.measurement import Step
    from gradprobe.tasks.script import Script, _Run

    def ended(*steps: int, optimizer: int | None = None) -> _Run:
        script = Script("json.tool", is_module=True, steps=steps, optimizer=optimizer)
        made = _Run(script, lambda seen, reports: 0)
        made.taken = [5]
        return made

    late = "json.tool: nothing was measured: it exited with 1 after 5 steps, before step 9"
    assert ended(9, 10).nothing("it exited with 1").message == late
    other = ended(1, optimizer=3).nothing("it ended").message
    assert other.endswith("measured: --optimizer 3: there are 1, counted from 0")
    some = ended(1, 9)
    some.seen.append(Step(1, 0, "SGD", 1))
    some.reports.append(report(chain(1.0)))
    assert (some.end(), capfd.readouterr().err) == (0, "")  # in the middle of its step
    assert some.end("it ended") == 0
    said = "gradprobe: json.tool: not all is shown: it ended after 5 steps, before step 9\n"
    assert capfd.readouterr().err == said


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    from gradprobe.errors import InputError
    from gradprobe.tasks.script import Script, steps_in

    with pytest.raises(InputError, match=r"no script 'absent\.py'"):
        Script("absent.py")
    (tmp_path / "my train.py").touch()
    with pytest.raises(InputError, match="no script") as missing:
        Script(str(tmp_path / "my_train.py"))
    assert missing.value.hint == f"did you mean '{tmp_path / 'my train.py'}'?"
    for nameless in (".", ""):
        with pytest.raises(InputError, match="no script"):
            Script(nameless)
    for module in ("absent", "absent.train", ".train"):
        with pytest.raises(InputError, match=f"no module '{module}'"):
            Script(module, is_module=True)
    Script("json.tool", is_module=True)
    assert steps_in("100, 1,10") == (1, 10, 100)
    for text in ("0", "x", "1,,2", "-1", "9" * 12):
        with pytest.raises(InputError, match="--steps"):
            steps_in(text)
