"""``gradprobe run`` on real clients: the gradients of torch.autograd.grad, and nothing changed."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import ACCELERATE, LIGHTNING, TRAINER
from helpers.places import ROOT
from safetensors.torch import save_file
from torch import ones

from gradprobe.errors import InputError
from gradprobe.model.call import load_call, save_call
from gradprobe.tasks.script import Script

SLOW = pytest.mark.slow

# An oracle inside of the script: before each backward pass, the norms of the same gradients.
ORACLE = """
import hashlib, json, os, sys
import torch
from torch import nn
torch.manual_seed(0)
def say(*words):
    if os.environ.get("RANK", "0") == "0":
        print(*words, file=sys.stderr)
def oracle(*nets, scale=lambda: 1.0, shared=lambda gradient: gradient):
    backward = torch.Tensor.backward
    def told(loss, *rest, **more):
        named = {f"{i}/{n}": p for i, net in enumerate(nets)
                 for n, p in net.named_parameters(remove_duplicate=False) if p.requires_grad}
        options = dict(retain_graph=True, allow_unused=True)
        grads = torch.autograd.grad(loss, list(named.values()), **options)
        norms = {n: None if g is None else float(shared(g).double().norm()) / scale()
                 for n, g in zip(named, grads)}
        say("NORMS", json.dumps(norms))
        return backward(loss, *rest, **more)
    torch.Tensor.backward = told
def ended(*nets):
    digest = hashlib.sha256()
    for p in (p for net in nets for p in net.state_dict().values()):
        digest.update(p.detach().float().numpy().tobytes())
    say("DIGEST", digest.hexdigest(), torch.rand(1).item())
def mlp(*sizes):
    pairs = [[nn.Linear(a, b), nn.Tanh()] for a, b in zip(sizes, sizes[1:])]
    return nn.Sequential(*[layer for pair in pairs for layer in pair][:-1])
net, x, y = mlp(4, 16, 16, 2), torch.randn(64, 4), torch.randint(2, (64,))
"""
PLAIN = """
oracle(net)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for step in range(4):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
ended(net)
"""
PINN = """
net = mlp(1, 16, 16, 1)
oracle(net)
optimizer = torch.optim.Adam(net.parameters(), 1e-2)
for step in range(4):
    optimizer.zero_grad()
    t = torch.rand(32, 1, requires_grad=True)
    u = net(t)
    [du] = torch.autograd.grad(u.sum(), t, create_graph=True)
    loss = (du + u).square().mean() + (net(torch.zeros(1, 1)) - 1).square().mean()
    loss.backward()
    optimizer.step()
ended(net)
"""
GAN = """
net, judge = mlp(8, 16, 16, 2), mlp(2, 16, 16, 1)
oracle(judge, net)
real = torch.randn(64, 2) + 3
ours = torch.optim.Adam(judge.parameters(), 1e-3)
theirs = torch.optim.Adam(net.parameters(), 1e-3)
bce = nn.functional.binary_cross_entropy_with_logits
for step in range(4):
    fake = net(torch.randn(64, 8))
    ours.zero_grad()
    loss = bce(judge(real), torch.ones(64, 1)) + bce(judge(fake.detach()), torch.zeros(64, 1))
    loss.backward()
    ours.step()
    theirs.zero_grad()
    bce(judge(fake), torch.ones(64, 1)).backward()
    theirs.step()
ended(net, judge)
"""
AMP = """
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
oracle(net, scale=scaler.get_scale)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for step in range(4):
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.DTYPE):
        loss = nn.functional.cross_entropy(net(x), y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
ended(net)
"""
# Each process has half of the batch; DistributedDataParallel takes the mean of their gradients.
DDP = """
torch.distributed.init_process_group("gloo")
def shared(gradient):
    torch.distributed.all_reduce(gradient)
    return gradient / 2
rank = torch.distributed.get_rank()
x, y = x[rank::2], y[rank::2]
whole, net = net, nn.parallel.DistributedDataParallel(net)
oracle(whole, shared=shared)
""" + PLAIN.replace("oracle(net)", "").replace("ended(net)", "ended(whole)")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
COMPILED = PLAIN.replace("oracle(net)", "oracle(net)\nwhole, net = net, torch.compile(net)")
COMPILED = COMPILED.replace("ended(net)", "ended(whole)")


def launched(folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(ORACLE + text)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words, "train.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def digest(done: subprocess.CompletedProcess[str]) -> str:
    [line] = re.findall(r"DIGEST \S+ \S+", done.stderr)
    return str(line)


def own_norms(report: dict[str, Any], told: dict[str, float | None], net: int) -> dict[str, float]:
    """What the oracle has of each row of the report that holds weights."""
    sizes = {}
    for row in report["rows"]:
        prefix = f"{net}/{row['name']}."
        norms = [norm for name, norm in told.items() if name.startswith(prefix)]
        if row["weight_gradient_norm"] is not None:
            sizes[row["name"]] = math.hypot(*(norm for norm in norms if norm is not None))
    return sizes


@SLOW
@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "per_step"),
    [
        pytest.param(PLAIN, 1, id="plain"),
        pytest.param(PINN, 1, id="pinn"),
        pytest.param(GAN, 2, id="gan"),
        pytest.param(AMP.replace("DTYPE", "float16"), 1, id="amp-float16"),
        pytest.param(AMP.replace("DTYPE", "bfloat16"), 1, id="amp-bfloat16"),
        pytest.param(COMPILED, 1, id="compiled"),
        pytest.param(LIGHTNING, 1, id="lightning"),
        pytest.param(TRAINER, 2, id="trainer"),
        pytest.param(ACCELERATE, 1, id="accelerate"),
        pytest.param(DDP, 1, id="ddp"),
    ],
)
def test_the_norms_are_autograds_and_the_results_the_scripts_own(
    text: str, per_step: int, tmp_path: Path
) -> None:
    launcher = TORCHRUN if text is DDP else ()
    words = ("-m", "gradprobe", "run", "--no-deep", "--steps", "1,3,99", "--format", "json")
    done = launched(tmp_path, text, *launcher, *words)
    assert done.returncode in (0, 1), done.stderr
    told = [json.loads(text) for text in re.findall(r"NORMS (\{.*?\})", done.stderr)]
    reports = json.loads(done.stdout)["reports"]
    assert len(reports) == (4 if text is GAN else 2)
    for index, report in enumerate(reports):
        if text is GAN:
            step, net = 4 * (index % 2) + index // 2, index // 2
        else:
            step, net = (1, 3)[index] * per_step - 1, 0
        rows = {
            row["name"]: row["weight_gradient_norm"]
            for row in report["rows"]
            if row["weight_gradient_norm"] is not None
        }
        assert rows
        assert rows == pytest.approx(own_norms(report, told[step], net), rel=1e-6)
    alone = launched(tmp_path, text, *launcher)
    assert alone.returncode == 0, alone.stderr
    if text is not COMPILED:  # what is compiled runs as it was written, and rounds otherwise
        assert digest(done) == digest(alone)


# ---- the batch, kept


@SLOW
def test_the_batch_of_a_step_is_probed_again(tmp_path: Path) -> None:
    text = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(4, 16, 16, 2)
    def forward(self, x, mask, scale=1.0):
        return self.net(x * mask) * scale
def loss(output):
    return nn.functional.cross_entropy(output, y)
if __name__ == "__main__":
    net = Net()
    torch.save(net.state_dict(), "w.pt")
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    loss(net(x, mask=(x > 0).float(), scale=0.5)).backward()
    optimizer.step()
"""
    words = ("-m", "gradprobe", "run", "--emit-inputs", "b.safetensors", "--format", "json")
    done = launched(tmp_path, text, *words)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    words = ("--weights", "w.pt", "--data", "b.safetensors", "--loss", "train:loss")
    command = [sys.executable, "-m", "gradprobe", "probe", "train:Net", *words, "--format", "json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    again = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    second = json.loads(again.stdout)
    assert second["config"]["batch_size"] == 64
    norms = [[row["gradient_norm"] for row in report["rows"]] for report in (first, second)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_a_call_is_kept_whole(tmp_path: Path) -> None:
    file = str(tmp_path / "b.safetensors")
    x = ones(5, 2).t()  # not contiguous
    save_call(file, (x, None, ones(2).long()), {"scale": 0.5, "mask": ones(2, 1).bool()})
    call = load_call(file, None, 1 << 20)
    assert call is not None
    args, kwargs = call
    assert args[0].equal(x)
    assert args[1] is None
    assert args[2].dtype.is_floating_point is False
    assert kwargs["scale"] == 0.5
    assert kwargs["mask"].equal(ones(2, 1).bool())
    call = load_call(file, 1, 1 << 20)
    assert call is not None
    assert [t.shape[0] for t in (call[0][0], call[0][2], call[1]["mask"])] == [1, 1, 1]


def test_what_is_no_call_is_left_or_refused(tmp_path: Path) -> None:
    file = str(tmp_path / "b.safetensors")
    save_file({"x": ones(2)}, file)
    assert load_call(file, None, 1 << 20) is None
    save_file({"args.1": ones(2)}, file)
    with pytest.raises(InputError, match="an argument is missing"):
        load_call(file, None, 1 << 20)
    for text in ("[", '{"args.1": []}', "3"):
        save_file({"args.0": ones(2)}, file, {"call": text})
        with pytest.raises(InputError, match="beside its tensors"):
            load_call(file, None, 1 << 20)
    with pytest.raises(InputError, match=r"args\.0 is a dict, and no tensor"):
        save_call(file, ({"x": ones(2)},), {})
    with pytest.raises(InputError, match="cannot write"):
        save_call(str(tmp_path / "absent" / "b.safetensors"), (ones(2),), {})
    with pytest.raises(InputError, match=r"expected a \.safetensors file"):
        Script(__file__, inputs="b.npz")
