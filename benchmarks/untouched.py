"""What it costs to leave a model as it was: seconds and memory, of ResNet-50 and a GPT-2 of 12×256.

    OMP_NUM_THREADS=1 python benchmarks/untouched.py

Printed for each: the seconds of the processor that `undisturbed` takes around a forward pass that
writes nothing, beside those of that pass; and the peak resident memory of one second look above
what the process held before, in weights of the model. The batch is small, so that activations are.
Each is measured in a process of its own. The models are modules of the user's own, not specs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from gradprobe.measure.second_look import second_look
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.make import make, module_subject
from gradprobe.model.subject import Subject
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.yaml import load

RESNET = Path(__file__).parents[1] / "model_specs" / "resnet50.yaml"
REPEATS = 5


class Own(nn.Module):
    """A network in a module of the user's own, of which nothing is known."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def gpt2() -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=12, n_embd=256, n_head=8))
    return module_subject(model, {"input_ids": torch.randint(50257, (4, 8))})


def resnet50() -> Subject:
    subject = make(load(str(RESNET)), ProbeOptions(batch_size=2))
    return module_subject(Own(subject.model), subject.args[0])


MODELS = {"resnet50": resnet50, "gpt2": gpt2}


def seconds(subject: Subject, kept: bool) -> float:
    """Of the processor, for one forward pass; the least of a few."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        with torch.no_grad():
            if kept:
                with undisturbed(subject.model):
                    subject.model(*subject.args, **subject.kwargs)
            else:
                subject.model(*subject.args, **subject.kwargs)
        times.append(time.process_time() - start)
    return min(times)


def resident(field: str) -> int:
    """``VmRSS`` or ``VmHWM``, in bytes."""
    match = re.search(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) << 10


def one(name: str) -> str:
    subject = MODELS[name]()
    weights = sum(p.numel() * p.element_size() for p in subject.model.parameters())
    bare, kept = seconds(subject, False), seconds(subject, True)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    second_look(subject)
    peak = (resident("VmHWM") - before) / weights
    cost = f"a pass {bare:.3f} s, kept as it was {kept:.3f} s"
    return f"{name:10} {weights / 1e6:.0f} MB of weights; {cost}; second look + {peak:.2f} weights"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--one", choices=tuple(MODELS))
    name = arguments.parse_args().one
    if name:
        warnings.simplefilter("ignore")
        print(one(name))
        return
    for each in MODELS:
        subprocess.run([sys.executable, __file__, "--one", each], check=True)


if __name__ == "__main__":
    main()
