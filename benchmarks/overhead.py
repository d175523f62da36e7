"""Time and peak memory of one probe ÷ those of a bare forward and backward; a trial in bare steps.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --trial
    python benchmarks/overhead.py --look
    python benchmarks/overhead.py --watch
    python benchmarks/overhead.py --floor    # narrow networks, and the tensor operations alone

For each network, in one run and in turn: a bare step (forward, loss, backward into ``.grad``), the
forum's loop over ``named_parameters()`` after such a step, and one probe with every column of the
table. Times are ratios of medians; memory is the peak resident set of a process that takes one
step, less what it held before, ÷ the same for the bare step. A trial of up to sixteen samples is
measured in bare steps of the same batch, and so are all the passes of a second look together,
without a learning rate and with one (which takes the curvature of the loss), by the processor's
time of one thread. ``gradprobe.watch`` is measured in steps of the same loop without it, at a step
that it looks at and at one that it does not, in turn, by the processor's time too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import gradprobe
from gradprobe.measure.norms import activation_stats, extremes, norms
from gradprobe.measure.one_pass import measure
from gradprobe.measure.overfit import overfit
from gradprobe.measure.take import further, look_again
from gradprobe.model.build import Network, build
from gradprobe.model.losses import projection
from gradprobe.model.make import module_subject
from gradprobe.model.subject import subject_of
from gradprobe.model.tensors import first_tensor
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.tasks.targets import load_spec

RESNET = str(Path(__file__).parent.parent / "model_specs" / "resnet50.yaml")
CASES: dict[str, tuple[str, StackOptions, int]] = {
    "50 x 64": ("plain", StackOptions(depth=50, width=64), 32),
    "1000 x 64": ("plain", StackOptions(depth=1000, width=64), 32),
    "50 x 1024": ("plain", StackOptions(depth=50, width=1024), 64),
    "ResNet-50": (RESNET, StackOptions(), 4),
}
GPT2 = "GPT-2 12x256"  # 12 layers of width 256, 256 positions, the whole vocabulary


def model_of(case: str) -> tuple[nn.Module, torch.Tensor]:
    """The network of a case, and a batch for it."""
    if case == GPT2:
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(n_layer=12, n_embd=256, n_head=8, n_positions=256, use_cache=False)
        return GPT2LMHeadModel(config), torch.randint(config.vocab_size, (4, 256))
    target, options, batch_size = CASES[case]
    spec = load_spec(target, options)
    return build(spec, batch_size=batch_size), torch.randn(batch_size, *spec.input.shape)


def steps(case: str) -> dict[str, Callable[[], object]]:
    """The three things to time, on one network."""
    network, x = model_of(case)

    def loss(output: object) -> torch.Tensor:
        tensor = first_tensor(output)
        assert tensor is not None
        return projection(tensor, None, 0)

    subject = subject_of(network, x, loss)

    def bare() -> None:
        network.zero_grad(set_to_none=True)
        loss(network(x)).backward()

    def forum() -> list[float]:
        bare()
        return average_gradients(network)

    def probe() -> object:
        network.zero_grad(set_to_none=True)
        return measure(subject)

    return {"bare": bare, "forum loop": forum, "gradprobe": probe}


def floor(case: str, rounds: int) -> str:
    """A probe, and its tensor operations alone, in bare steps."""
    network, x = model_of(case)
    assert isinstance(network, Network)
    subject = subject_of(network, x, _half_square)
    weights = list(network.parameters())
    matrices = [weight for weight in weights if weight.dim() > 1]

    def bare() -> object:
        network.zero_grad(set_to_none=True)
        subject.loss(network(x)).backward()
        return None

    def operations() -> object:
        outputs = [x]
        for row in subject.rows:
            outputs.append(row.module(outputs[-1]))
        values = torch.autograd.grad(subject.loss(outputs[-1]), [*outputs[1:], *weights])
        with torch.no_grad():
            return norms([*values, *weights]), activation_stats(outputs[1:]), extremes(matrices)

    todo = {"bare": bare, "tensor operations": operations, "probe": lambda: measure(subject)}
    return f"{case:18}{in_bare_steps(todo, rounds)}"


def in_bare_steps(steps: dict[str, Callable[[], object]], rounds: int) -> str:
    """The processor's time of each step in turn, in that of the one called bare."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    bare = statistics.median(seconds["bare"])
    return ", ".join(f"{name} {statistics.median(s) / bare:.2f}" for name, s in seconds.items())


def trial(case: str) -> str:
    """A trial's steps and rates, and its time in bare steps."""
    if case == GPT2:
        network, x = model_of(case)
    else:  # 16 images of 64 pixels
        spec = load_spec(RESNET, StackOptions())
        spec = replace(spec, input=replace(spec.input, shape=(3, 64, 64)))
        network, x = build(spec, batch_size=16), torch.randn(16, 3, 64, 64)
    subject = module_subject(network, x)

    def bare() -> None:
        network.zero_grad(set_to_none=True)
        subject.loss(network(x)).backward()

    def seconds(step: Callable[[], object]) -> float:
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    bare()
    step = statistics.median(seconds(bare) for _ in range(3))
    network.zero_grad(set_to_none=True)
    start = time.perf_counter()
    outcome = overfit(subject)
    taken = (time.perf_counter() - start) / step
    steps = sum(course.steps for course in outcome.courses)
    return f"{case:18}{taken:8.0f} bare steps, {steps} steps of {len(outcome.courses)} courses"


def look(case: str, rounds: int = 3) -> str:
    """A second look's time in bare steps: its passes, and with the curvature."""
    network, x = model_of(case)
    if case == GPT2:
        x = torch.cat([x, x.flip(1)])  # 8 sequences, as a configuration is probed with
    subject = replace(module_subject(network, x, _half_square), drawn=False)
    profile = measure(subject)

    def bare() -> object:
        network.zero_grad(set_to_none=True)
        subject.loss(network(x)).backward()
        return None

    def passes(rate: float | None) -> object:
        network.zero_grad(set_to_none=True)
        seen, reason = look_again(subject, profile, rate is not None)
        assert seen is not None, reason
        return further(subject, profile, seen, rate)

    steps = {"bare": bare, "look": lambda: passes(None), "with lr": lambda: passes(0.1)}
    return f"{case:18}{in_bare_steps(steps, rounds)}"


def watched(case: str, rounds: int) -> str:
    """A training step under ``gradprobe.watch`` in steps without it."""
    network, x = model_of(case)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad()
        _half_square(network(x)).backward()
        optimizer.step()
        return time.process_time() - start

    step()
    seconds: dict[str, list[float]] = {"without": [], "looked at": [], "not looked at": []}
    for _ in range(rounds):
        seconds["without"].append(step())
        with gradprobe.watch(network, every=10**9):  # it looks at the first step
            seconds["looked at"].append(step())
            seconds["not looked at"].append(step())
    bare = statistics.median(seconds["without"])
    told = (f"{name} {statistics.median(times) / bare:.2f}" for name, times in seconds.items())
    spread = max(seconds["without"]) / min(seconds["without"])
    return f"{case:18}" + ", ".join(told) + f"; largest ÷ least without: {spread:.2f}"


def _half_square(output: object) -> torch.Tensor:
    tensor = first_tensor(output)
    assert tensor is not None
    return tensor.square().mean() / 2


def average_gradients(network: nn.Module) -> list[float]:
    """The loop that the PyTorch forum hands on: the mean |gradient| of every weight."""
    return [
        parameter.grad.abs().mean().item()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and "bias" not in name
    ]


def peak_memory(case: str, what: str) -> int:
    """Bytes by which one step raises the peak resident set, in a process of its own."""
    command = [sys.executable, __file__, "--child", case, "--what", what]
    return int(json.loads(subprocess.check_output(command, text=True)))


def child(case: str, what: str) -> None:
    step = steps(case)[what]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    step()
    print(json.dumps(resident("VmHWM") - before))


def resident(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key} in /proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", choices=[*CASES, GPT2], action="append")
    parser.add_argument("--child", choices=[*CASES, GPT2])
    parser.add_argument("--what", default="bare")
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--look", action="store_true")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--floor", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        child(arguments.child, arguments.what)
        return
    if arguments.look:
        for case in arguments.case or ("ResNet-50", GPT2):
            print(look(case), flush=True)
        return
    if arguments.floor:
        for case in arguments.case or ("50 x 64", "1000 x 64"):
            print(floor(case, arguments.rounds), flush=True)
        return
    if arguments.watch:
        for case in arguments.case or ("50 x 1024", GPT2):
            print(watched(case, arguments.rounds), flush=True)
        return
    if arguments.trial:
        for case in ("ResNet-50", GPT2):
            print(trial(case), flush=True)
        return
    print(
        f"torch {torch.__version__}, {arguments.threads} thread(s); ÷ bare forward and backward\n"
    )
    print(f"{'':12}{'time':>24}{'peak memory':>28}")
    print(f"{'':12}{'forum loop':>14}{'gradprobe':>12}{'forum loop':>16}{'gradprobe':>12}")
    for case in arguments.case or [*CASES, GPT2]:
        todo = steps(case)
        for step in todo.values():
            step()
        rounds = max(3, arguments.rounds // (5 if case in ("ResNet-50", GPT2) else 1))
        times: dict[str, list[float]] = {name: [] for name in todo}
        for _ in range(rounds):
            for name, step in todo.items():
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
        bare = statistics.median(times["bare"])
        memory = {name: peak_memory(case, name) for name in todo}
        others = ("forum loop", "gradprobe")
        ratios = [statistics.median(times[name]) / bare for name in others]
        peaks = [memory[name] / memory["bare"] for name in others]
        print(f"{case:12}{ratios[0]:>14.2f}{ratios[1]:>12.2f}{peaks[0]:>16.2f}{peaks[1]:>12.2f}")


if __name__ == "__main__":
    main()
