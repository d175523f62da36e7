"""Models that are Python code: named, built, fed, measured, and kept from doing harm.

Most run with ``--trusted-in-process``, where torch is there already; what may take its process down
runs in a real one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from helpers.commands import Result, Run
from helpers.places import ROOT
from helpers.processes import is_gone

import gradprobe
from gradprobe.errors import InputError
from gradprobe.model.build import build
from gradprobe.spec.network import TensorSpec
from gradprobe.spec.schema import spec_schema
from gradprobe.spec.sources.python import read_argument, read_tensor
from gradprobe.spec.sources.yaml import parse_any
from gradprobe.verdict.rules.table import RULE_WORDS

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8, depth=3, bias=True):
        super().__init__()
        self.stem = nn.Linear(6, width, bias)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 5)

    def forward(self, x, scale=1.0):
        x = self.stem(x) * scale
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(x)
"""
INPUT = ("--input", "shape=4,6")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Write a file into the working directory; what is imported from there is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change within a second

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]

    def call(source: str, name: str = "net.py") -> Path:
        forget()
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
        return file

    yield call
    forget()


@pytest.fixture
def probe(run: Run, write: Callable[..., Path]) -> Run:
    """Probe, in this process, a target in a file ``net.py`` of the given source."""

    def call(source: str, *options: str, target: str = "net:Net") -> Result:
        write(source)
        return run("probe", target, "--trusted-in-process", *options)

    return call


def report(result: Result) -> dict[str, Any]:
    assert result.code in (0, 1), result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


JSON = ("--format", "json")


# ---- what a target may be

TARGETS = {
    "a class": ("net:Net", "", 0),
    "a factory": ("net:make", "def make(depth=3): return Net(depth=depth)", 0),
    "a module": ("net:model", "model = Net()", 0),
    "inside a class": ("net:Zoo.small", "class Zoo:\n    small = staticmethod(lambda: Net())", 0),
}


@pytest.mark.parametrize(("target", "more", "code"), TARGETS.values(), ids=TARGETS)
def test_a_target_is_a_class_a_factory_or_a_module(
    probe: Run, target: str, more: str, code: int
) -> None:
    ended = probe(NET + more, *INPUT, *JSON, target=target)
    found = report(ended)
    assert ended.code == code
    assert (found["target"], found["name"]) == (target, "Net")
    assert [row["kind"] for row in found["rows"]] == ["Linear"] * 5
    # The same seed draws the same weights, whoever calls the class.
    assert found["reach"] == report(probe(NET + more, *INPUT, *JSON))["reach"]


def test_weights_and_inputs_are_those_of_the_seed(probe: Run) -> None:
    noisy = (
        "import random\nimport numpy\n"
        + NET
        + (
            "def make():\n    net = Net()\n    with torch.no_grad():\n"
            "        net.stem.weight.mul_(1 + random.random() + numpy.random.rand())\n"
            "    return net\n"
        )
    )
    texts = [probe(noisy, *INPUT, *JSON, "--seed", s, target="net:make").out for s in "112"]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_arguments_reach_the_factory(probe: Run) -> None:
    found = report(
        probe(NET, *INPUT, *JSON, "--arg", "width=7", "--arg", "depth=2", "--arg", "bias=false")
    )
    assert found["parameters"] == 6 * 7 + 2 * (7 * 7 + 7) + 7 * 5 + 5


ARGUMENTS = {
    "a=1e-3": ("a", 0.001),
    "a=12": ("a", 12),
    "a=-5": ("a", -5),
    "a=2.0": ("a", 2.0),
    "a=true": ("a", True),
    "a=null": ("a", None),
    "a=": ("a", ""),
    "a=gelu": ("a", "gelu"),
    "a='12'": ("a", "12"),
    'a="yes"': ("a", "yes"),
    "a=b=c": ("a", "b=c"),
    "a=[64, 32]": ("a", (64, 32)),
    "a=9000000000": ("a", 9_000_000_000),
}


@pytest.mark.parametrize("text", ARGUMENTS)
def test_an_argument_is_read_by_its_form(text: str) -> None:
    read = read_argument(text)
    assert read == ARGUMENTS[text]
    assert type(read[1]) is type(ARGUMENTS[text][1])


@pytest.mark.parametrize("text", ["a", "=1", "1a=2", "a=yes", "a=017", "a=.nan", "a={b: 1}", "a=["])
def test_an_argument_that_reads_two_ways_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--arg|a:"):
        read_argument(text)


# ---- what goes in


@pytest.mark.parametrize(
    ("text", "tensor"),
    [
        ("shape=32,64", TensorSpec((32, 64))),
        ("shape=3/dtype=float64", TensorSpec((3,), "float64")),
        ("shape=8,128/dtype=int64/high=1000", TensorSpec((8, 128), "int64", 1000)),
        ("dtype=bool/shape=2,2", TensorSpec((2, 2), "bool")),
    ],
)
def test_an_input_is_a_shape_and_a_dtype(text: str, tensor: TensorSpec) -> None:
    assert read_tensor(text) == tensor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "32,64",
        "shape=",
        "shape=0,4",
        "shape=4,x",
        "shape=4/shape=5",
        "shape=4/dtype=flaot32",
        "shape=4/dtype=int64",
        "shape=4/high=7",
        "shape=4/dtype=uint8/high=257",
        "dtype=float32",
        "shap=4",
        "shape=99999999999",
    ],
)
def test_an_input_that_cannot_be_drawn_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="input"):
        read_tensor(text)


def test_inputs_too_large_are_refused_before_anything_runs(run: Run, write: Any) -> None:
    write("raise SystemExit")
    ended = run("probe", "net:Net", "--input", "shape=1000000,1000000")
    assert (ended.code, ended.out) == (2, "")
    assert "GiB" in ended.err  # 4e12 bytes


TWO = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 2)
    def forward(self, ids, mask, *, gain=1.0):
        return self.out(self.mix(self.embed(ids) * mask.unsqueeze(-1)) * gain)
"""
IDS = "torch.arange(8).reshape(2, 4)"
MASK = "torch.ones(2, 4)"
FUNCTIONS = {
    "a tuple": f"({IDS}, {MASK})",
    "a dict": f"{{'mask': {MASK}, 'ids': {IDS}}}",
    "both": f"(({IDS},), {{'mask': {MASK}, 'gain': 1.0}})",
}


@pytest.mark.parametrize("value", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_gives_the_inputs(probe: Run, value: str) -> None:
    source = f"import torch\n{TWO}\ndef batch(): return {value}\n"
    found = report(probe(source, "--inputs", "net:batch", *JSON))
    model = Namespace(source).Net
    torch.manual_seed(0)
    inputs = (torch.arange(8).reshape(2, 4), torch.ones(2, 4))
    expected = gradprobe.probe(model(), inputs)
    assert found["reach"] == expected.reach
    assert found["config"]["batch_size"] == 2
    assert found["config"]["data"] == "net:batch"


class Namespace:
    """The names that a source defines, without an import."""

    def __init__(self, source: str) -> None:
        exec(source, self.__dict__)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def test_each_input_is_one_argument(probe: Run) -> None:
    ids, mask = ("--input", "shape=2,4/dtype=int64/high=9"), ("--input", "shape=2,4")
    assert len(report(probe(TWO, *ids, *mask, *JSON))["rows"]) == 3
    ended = probe(TWO, *ids)
    assert ended.code == 2
    assert "Net.forward(ids, mask, *, gain=1.0)" in ended.err
    assert "mask" in ended.err


def test_without_inputs_it_says_how_to_give_them(probe: Run) -> None:
    assert "\ninputs guessed: --input shape=32," in probe(NET).out
    ended = probe(TWO)
    assert ended.code == 2
    assert "Net.forward(ids, mask, *, gain=1.0) needs inputs" in ended.err
    assert all(option in ended.err for option in ("--input ", "--inputs", "--data"))


def test_data_with_labels(probe: Run, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((9, 6))  # float64, as numpy has it
    y = np.arange(9) % 5
    np.savez(tmp_path / "batch.npz", x=x, y=y)
    options = ("--data", "batch.npz", "--loss", "cross_entropy", "--batch-size", "7", *JSON)
    found = report(probe(NET, *options))
    torch.manual_seed(0)
    model = Namespace(NET).Net()
    logits = model(torch.from_numpy(x[:7]).float())
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[:7]))
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert (found["config"]["batch_size"], found["config"]["data"]) == (7, "batch.npz")


def test_a_loss_of_ones_own(probe: Run) -> None:
    source = NET + "def loss(out): return 1000 * out.mean()\n"
    found = report(probe(source, *INPUT, "--loss", "net:loss", *JSON))
    assert found["config"]["loss"] == "net:loss"
    # ∂(1000 · mean of 4 × 5)/∂out is 50 everywhere: norm 50 √20.
    assert found["rows"][-1]["gradient_norm"] == pytest.approx(50 * 20**0.5, rel=1e-6)


def test_the_loss_that_a_model_puts_out(probe: Run) -> None:
    ended = probe(NET, *INPUT, "--loss", "own")
    assert (ended.code, ended.out) == (3, "")
    assert "error: the model gave no loss for its labels" in ended.err
    source = NET + "class Own(Net):\n    def forward(self, x):\n        out = super().forward(x)\n"
    source += "        return {'logits': out, 'loss': out.square().mean()}\n"
    found = report(probe(source, *INPUT, "--loss", "own", *JSON, target="net:Own"))
    assert (found["config"]["loss"], found["verdict"]) == ("own", "healthy")


def test_dtype_and_mode(probe: Run) -> None:
    source = NET.replace("return self.head(x)", "return self.head(self.drop(x))").replace(
        "self.stem =", "self.drop = nn.Dropout(1.0)\n        self.stem ="
    )
    double = report(probe(source, *INPUT, "--dtype", "float64", "--eval-mode", *JSON))
    assert (double["config"]["dtype"], double["config"]["mode"]) == ("float64", "eval")
    assert double["reach"] > 0
    built = report(probe(source, *INPUT, *JSON))  # a module is built in train mode
    assert built["config"]["mode"] == "train"
    assert built["rows"][0]["gradient_norm"] == 0
    frozen = source + "def make(): return Net().eval()\n"
    assert report(probe(frozen, *INPUT, *JSON, target="net:make"))["config"]["mode"] == "eval"


# ---- names that are not there: exit 2, and the nearest

MISSPELT = {
    "a module": ("nett:Net", INPUT, "there is no module nett", "did you mean 'net'?"),
    "in a package": ("zoo.nett:Net", INPUT, "no module zoo.nett", "did you mean 'zoo.net'?"),
    "no package": ("net.deep:Net", INPUT, "there is no module net.deep", ""),
    "a name": ("net:Nat", INPUT, "net has no Nat", "did you mean 'Net'?"),
    "a far name": ("net:zzz", INPUT, "net has no zzz", "it has: Net"),
    "a file": ("nte.py:Net", INPUT, "there is no file nte.py", "did you mean 'net.py'?"),
    "a file's path": ("a/net.py:Net", INPUT, "there is no file a/net.py", ""),
    "a colon without a name": ("net.py:", INPUT, "net.py is a file of Python code", "net.py:Net"),
    "a file alone": ("net.py", INPUT, "net.py is a file of Python code with", "probe net.py:"),
    "an argument": ("net:Net", (*INPUT, "--arg", "widht=4"), "widht", "did you mean 'width'?"),
    "a word like Python's own": ("nope:Net", INPUT, "no module nope", "--path DIR: where nope is"),
    "elsewhere": (
        "qqq_zzz:Net",
        INPUT,
        "there is no module qqq_zzz",
        "--path DIR: where qqq_zzz is imported from",
    ),
    "a number": ("net:limit", INPUT, "net:limit is an int", ""),
    "no module made": ("net:text", INPUT, "net:text gives a str, not a torch.nn.Module", ""),
    "arguments of a module": ("net:model", (*INPUT, "--arg", "a=1"), "built already", ""),
    "inputs' name": ("net:Net", ("--inputs", "net:bach"), "net has no bach", "'batch'"),
    "inputs' form": ("net:Net", ("--inputs", "batch"), "not of the form", ""),
    "the loss's form": ("net:Net", (*INPUT, "--loss", "mes"), "mes", "did you mean 'mse'?"),
    "two kinds": ("net:Net", (*INPUT, "--inputs", "net:batch"), "exclude each other", ""),
    "the same twice": ("net:Net", (*INPUT, "--arg", "a=1", "--arg", "a=2"), "twice", ""),
    "no such folder": ("net:Net", (*INPUT, "--path", "nowhere"), "no folder nowhere", ""),
    "a batch size": ("net:Net", (*INPUT, "--batch-size", "4"), "--batch-size", ""),
    "no time": ("net:Net", (*INPUT, "--timeout", "0"), "--timeout 0 is out of range", ""),
    "blocks": (
        "net:Net",
        (*INPUT, "--by", "position"),
        "no effect on net:Net",
        "--by position needs a spec",
    ),
    "its spec": ("net:Net", (*INPUT, "--emit-spec"), "--emit-spec", ""),
    "another's option": (
        "plain",
        ("--arg", "depth=3"),
        "--arg is for Python models",
        "",
    ),
    "nothing to train": ("net:bare", INPUT, "no trainable parameters", ""),
    "shadowed": ("random:Net", INPUT, "another module is called random", "rename random.py"),
}


@pytest.mark.parametrize(("target", "options", "said", "hint"), MISSPELT.values(), ids=MISSPELT)
def test_what_does_not_fit_is_named(
    probe: Run, write: Any, target: str, options: tuple[str, ...], said: str, hint: str
) -> None:
    for other in ("zoo/net.py", "zoo/__init__.py", "random.py"):
        write("", other)
    source = (
        NET + "limit = 3\ndef text(): return 'x'\nmodel = Net()\ndef batch(): pass\n"
        "def bare(): return nn.Tanh()\n"
    )
    ended = probe(source, *options, target=target)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert hint in ended.err
    assert "Traceback" not in ended.err


# ---- code that raises: exit 3, at the user's own line, marked ▲

RAISING = {
    "at import": ("x = ▲1 / 0", "importing net failed: ZeroDivisionError: division by zero"),
    "in what it imports": ("▲import tensorflwo", "No module named 'tensorflwo'"),
    "a syntax error": ("x = ▲(1 +", "SyntaxError: '(' was never closed"),
    "sys.exit at import": ("import sys\n▲sys.exit(0)", "sys.exit(0) was called"),
    "while it is built": (
        NET.replace("super().__init__()", "▲super().__init__(x=1)"),
        "building net:Net failed in Net.__init__: TypeError",
    ),
    "while it runs": (
        NET.replace("x = self.stem(x) * scale", "x = ▲self.stem(x.T)"),
        "in row stem (Linear): RuntimeError: mat1 and mat2 shapes",
    ),
    "sys.exit while it runs": (
        NET.replace("return self.head", "▲raise SystemExit(0)\n        return self.head"),
        "running the model failed in Net.forward: sys.exit(0) was called",
    ),
    "no Exception": (
        NET.replace("return self.head", "▲raise BaseException('no')\n        return self.head"),
        "in Net.forward: BaseException: no",
    ),
    "deep in a helper": (
        NET.replace("return self.head(x)", "return check(self.head(x))")
        + "def check(x):\n    é, x = 'é', ▲x.nothing\n",
        "AttributeError: 'Tensor' object has no attribute 'nothing'",
    ),
    "an error that cannot be shown": (
        "class Bad(Exception):\n    def __str__(self): raise ValueError\n▲raise Bad",
        "importing net failed: Bad",
    ),
    "escapes": ("▲raise ValueError('\\x1b[31mred')", r"ValueError: \x1b[31mred"),
    "the loss": (NET + "def loss(out): return ▲out + 'a'\n", "TypeError"),
    "the inputs": (NET + "def batch(): return ▲{}[0]\n", "calling net:batch failed in batch"),
}


@pytest.mark.parametrize(("source", "said"), RAISING.values(), ids=RAISING)
def test_what_the_code_raises_is_told_at_its_own_line(probe: Run, source: str, said: str) -> None:
    before, _, _ = source.partition("▲")
    line = before.count("\n") + 1
    column = len(before) - before.rfind("\n")
    options = ["--inputs", "net:batch"] if "batch" in source else [*INPUT]
    options += ["--loss", "net:loss"] if "loss" in source else []
    ended = probe(source.replace("▲", ""), *options)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith(f"net.py:{line}:{column}: error: ")
    assert said in ended.err
    assert ended.err.count("\n") <= 4  # the message, the line, the caret
    assert "\x1b" not in ended.err
    assert "child.py" not in ended.err
    assert sys.path[0] != os.getcwd()  # and the import path is as it was


def test_what_has_no_line_of_the_users_names_no_line(run: Run) -> None:
    arguments = ("--arg", "in_features=-3", "--arg", "out_features=4")
    ended = run("probe", "torch.nn:Linear", "--trusted-in-process", *arguments, *INPUT)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("gradprobe: error: building torch.nn:Linear failed: RuntimeError")
    # Nor the lines of gradprobe's through which the model is called.
    arguments = ("--arg", "in_features=6", "--arg", "out_features=4", "--input", "shape=2,5")
    for command in ("probe", "block", "paths", "fix"):
        ended = run(command, "torch.nn:Linear", "--trusted-in-process", *arguments)
        assert (ended.code, ended.out) == (3, "")
        assert ended.err.startswith("gradprobe: error: the model failed"), command


# ---- a spec that names code

SPEC = """\
name: mine
model:
  target: net:Net
  path: code
  args: {width: 7, bias: false}
  inputs: {shape: [4, 6]}
check:
  thresholds: {vanishing: 1.0e-6}
"""


def test_a_spec_names_code_and_runs_it_only_when_allowed(run: Run, write: Any) -> None:
    write(NET, "code/net.py")
    write(SPEC, "net.yaml")
    for command in ("probe", "block", "compare", "diff", "fix", "paths", "sweep"):
        twice = ("net.yaml",) * (2 if command == "diff" else 1)
        ended = run(command, *twice, "--loss", "net:loss")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("net.yaml:3:11: error: this spec runs code: net:Net\n")
        assert "--allow-code" in ended.err
        assert "net" not in sys.modules
    options = ("net.yaml", "--allow-code", "--trusted-in-process", *JSON)
    found = report(run("probe", *options))
    assert (found["target"], found["name"]) == ("net.yaml", "mine")
    assert found["parameters"] == 6 * 7 + 3 * (7 * 7 + 7) + 7 * 5 + 5
    assert found["config"]["thresholds"]["vanishing"] == 1e-6
    # What the command line says goes before what the file says, argument by argument.
    found = report(run("probe", *options, "--arg", "width=4", "--eval-mode"))
    assert found["parameters"] == 6 * 4 + 3 * (4 * 4 + 4) + 4 * 5 + 5
    assert found["config"]["mode"] == "eval"


BAD_SPECS = {
    "with layers": ("layers: ▲[Tanh]\nmodel: {target: a:b}", "'layers' and 'model' exclude"),
    "no target": ("model: ▲{path: .}", "'target' is missing"),
    "no name": ("model: {target: ▲net}", "not of the form package.module:name"),
    "no key": ("model: {target: a:b, ▲arg: {}}", "unknown key 'arg'"),
    "no mode": ("model: {target: a:b, mode: ▲evl}", "unknown mode 'evl'"),
    "no dtype": ("model: {target: a:b, inputs: {shape: [1], dtype: ▲f32}}", "unknown dtype"),
    "no high": ("model: {target: a:b, inputs: ▲{shape: [1], dtype: int64}}", "needs 'high'"),
    "no shape": ("model: {target: a:b, inputs: [▲{dtype: int64}]}", "'shape' is missing"),
    "no function": ("model: {target: a:b, inputs: ▲batch}", "not of the form"),
    "no loss": ("model: {target: a:b}\nloss: ▲mes", "unknown loss 'mes'"),
    "no value": ("model: {target: a:b, args: {a: ▲yes}}", "expected a string"),
    "no folder": ("model: {target: ▲a:b, path: nowhere}", "no folder"),
}


@pytest.mark.parametrize(("text", "said"), BAD_SPECS.values(), ids=BAD_SPECS)
def test_a_spec_that_names_code_badly(run: Run, write: Any, text: str, said: str) -> None:
    before, _, _ = text.partition("▲")
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    write(text.replace("▲", ""), "net.yaml")
    ended = run("probe", "net.yaml", "--allow-code")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"net.yaml:{place}: error: ")
    assert said in ended.err


def test_the_schema_knows_a_spec_that_names_code() -> None:
    validator = jsonschema.Draft7Validator(spec_schema(RULE_WORDS))
    good = [SPEC, "model: {target: a.b:c.d, inputs: a:b, mode: eval}\nloss: a:b\n"]
    good.append("model: {target: a:b, inputs: [{shape: [1], dtype: int64, high: 2}, {shape: [2]}]}")
    for text in good:
        parse_any(text.encode(), "net.yaml")
        assert validator.is_valid(yaml.safe_load(text))
    # That integers need `high`, and what folders there are, is not for a schema to say.
    for name in BAD_SPECS.keys() - {"no high", "no folder", "no value"}:
        assert not validator.is_valid(yaml.safe_load(BAD_SPECS[name][0].replace("▲", ""))), name


# ---- the same network, as a spec and as code

RESIDUAL_MLP = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))

class Net(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.stem = nn.Linear(64, 64)
        self.blocks = nn.ModuleList(Block() for _ in range(24))
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)
        self.double()
        names = list(self.state_dict())
        values = torch.load(weights, weights_only=True).values()
        self.load_state_dict(dict(zip(names, values, strict=True)))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
"""


def test_a_spec_and_the_same_network_in_python_have_the_same_profile(
    probe: Run, run: Run, tmp_path: Path
) -> None:
    spec = gradprobe.load(str(ROOT / "model_specs" / "residual_mlp.yaml"))
    network = build(spec, seed=3, dtype=torch.float64)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    options = ("--seed", "3", "--dtype", "float64", *JSON)
    inputs = ("--input", "shape=32,64", "--arg", "weights=weights.pt")
    mine = report(probe(RESIDUAL_MLP, *inputs, *options))
    theirs = report(run("probe", spec.source, *options))
    assert len(mine["rows"]) == len(theirs["rows"]) == 27
    numbers = ("gradient_norm", "reach", "activation_rms", "input_dependence", "zero_fraction")
    numbers += ("weight_norm", "weight_gradient_norm")
    for one, other in zip(mine["rows"], theirs["rows"], strict=True):
        for key in numbers:
            assert one[key] == pytest.approx(other[key], rel=1e-12), (one["name"], key)
    assert mine["verdict"] == theirs["verdict"]
    for key in ("reach", "decay", "loss", "parameters"):
        assert mine[key] == pytest.approx(theirs[key], rel=1e-12)


# ---- in a process of its own

TALKATIVE = "import os\nprint('imported')\nos.write(1, b'by number\\n')\n" + NET.replace(
    "return self.head", "print('{}')\n        return self.head"
)


@pytest.mark.slow
def test_its_process_gives_what_this_one_gives_and_prints_nothing_between(
    probe: Run, run_process: Run, tmp_path: Path
) -> None:
    here = probe(TALKATIVE, *INPUT, *JSON)
    there = run_process("probe", "net:Net", "--path", str(tmp_path), *INPUT, *JSON)
    assert (there.code, there.out) == (0, here.out)
    assert sorted(there.err.splitlines()) == ["by number", "imported", "{}"]


HOSTILE = {
    "os._exit(0)": (
        NET.replace("return self.head", "import os; os._exit(0)\n        return self.head"),
        "its process ended with exit code 0 and no result while running the model",
        None,
    ),
    "a segfault": (
        NET.replace("return self.head", "import ctypes; ▲ctypes.string_at(0)\n        return 1 or"),
        "killed by signal 11 (SIGSEGV) while running the model, in ",
        "forward",
    ),
    "out of memory": (
        "import os\nos.kill(os.getpid(), 9)",
        "killed by signal 9 (SIGKILL) while importing net\nhint: it may have run out of memory",
        None,
    ),
    "a loop": ("while True: pass", "no result after 2 s", None),
    "a forged result": (
        "import os\nfor fd in range(3, 30):\n    try: os.write(fd, b'\\x80\\x04.' * 9)\n"
        "    except OSError: pass\nimport time; time.sleep(99)",
        "its code wrote into the pipe that the result comes through",
        None,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("source", "said", "function"), HOSTILE.values(), ids=HOSTILE)
def test_no_ending_of_its_process_passes_for_healthy(
    run: Run, write: Any, source: str, said: str, function: str | None
) -> None:
    write(source.replace("▲", ""))
    timeout = ("--timeout", "2") if "while True" in source else ()
    ended = run("probe", "net:Net", *INPUT, *timeout)
    assert (ended.code, ended.out) == (3, "")
    assert said in ended.err
    assert f"{ROOT}/gradprobe" not in ended.err
    if function:
        line = source[: source.index("▲")].count("\n") + 1
        assert re.match(rf"net\.py:{line}:\d+: error: ", ended.err)
        assert function in ended.err


@pytest.mark.slow
def test_an_interrupt_ends_both(write: Any, tmp_path: Path) -> None:
    # A sum in C lets no other thread of its process run, so none of them can end it either.
    write("import os\nopen('pid', 'w').write(str(os.getpid()))\nsum(range(10**12))\n")
    command = [sys.executable, "-m", "gradprobe", "probe", "net:Net", *INPUT]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        pid = tmp_path / "pid"
        for _ in range(6000):  # a loaded machine takes long to import torch
            if pid.exists() and pid.read_text():
                break
            time.sleep(0.02)
        parent.send_signal(signal.SIGINT)
        out, err = parent.communicate(timeout=30)
    assert (parent.returncode, out, err) == (130, b"", b"")
    assert is_gone(int(pid.read_text()))


def test_blocks_and_rows_of_a_python_model(run: Run, tmp_path: Path) -> None:
    """The skip is seen without being told of, and a glob says which modules are the blocks."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Block(nn.Module):\n"
        "    def __init__(self, skip):\n"
        "        super().__init__()\n"
        "        self.f, self.skip = nn.Sequential(nn.Linear(16, 16), nn.Tanh()), skip\n"
        "    def forward(self, x):\n"
        "        return x + self.f(x) if self.skip else self.f(x)\n"
        "def net(skip):\n"
        "    blocks = nn.Sequential(*(Block(skip) for _ in range(4)))\n"
        "    return nn.Sequential(nn.Linear(8, 16), blocks, nn.Linear(16, 3))\n"
    )
    arguments = (
        "probe",
        "net:net",
        "--path",
        str(tmp_path),
        "--input",
        "shape=32,8",
        "--blocks",
        "--trusted-in-process",
        *JSON,
    )
    for skip, expected in (("true", 1.0), ("false", 0.0)):
        rows = report(run(*arguments, "--arg", f"skip={skip}"))["rows"]
        blocks = [row for row in rows if row["kind"] == "Block"]
        assert len(blocks) == 4
        for row in blocks:
            assert row["jacobian"]["highway"]["value"] == pytest.approx(expected, abs=0.1)
    rows = report(run(*arguments, "--arg", "skip=false", "--rows", "1.*.f"))["rows"]
    assert [row["name"] for row in rows if row["name"].endswith(".f")] == [
        f"1.{index}.f" for index in range(4)
    ]
