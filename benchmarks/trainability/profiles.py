"""Measure before training what the calibration and the peers' rules read, and keep it.

    OMP_NUM_THREADS=1 python benchmarks/trainability/profiles.py

One line of ``profiles.jsonl`` for each network of the three outcomes files, and for each seed;
lines that are there are not measured again: delete the file when a signal changes. ``signals`` are
gradprobe's on its default probe: 32 standard normal inputs and the projection loss, no data. The
peers watch a training run, so theirs are measured on 64 real digits and their cross entropy.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from train import digits, read

from gradprobe.measure.one_pass import measure
from gradprobe.measure.second_look import second_look
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.build import build
from gradprobe.model.losses import LOSSES
from gradprobe.model.make import make
from gradprobe.model.subject import Subject
from gradprobe.numbers import finite
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.yaml import parse
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.signals import signals

HERE = Path(__file__).parent
PROFILES = HERE / "profiles.jsonl"
GIVEN, FIT, REPORT = (HERE / f"outcomes{part}.jsonl" for part in ("", "_fit", "_report"))
SEEDS = {GIVEN: 1, FIT: 1, REPORT: 16}  # the report says how often another seed flips the verdict
PEER_BATCH = 64


def network_spec(line: dict[str, Any]) -> NetworkSpec:
    # JSON is YAML: the spec goes through the parser that every spec goes through.
    return parse(json.dumps(line["spec"]).encode(), f"outcome {line['id']}")


def gradprobe_signals(subject: Subject) -> dict[str, Any]:
    """The signals of one probe, with today's reach and verdict beside them."""
    profile = measure(subject)
    look = second_look(subject)
    found = signals(profile, look.coherence, look.highways, look.lost_past, look.invariant)
    verdict = diagnose(profile, THRESHOLDS)[1]
    return {
        "signals": found and {k: short(v) for k, v in found._asdict().items()},
        "reach": short(profile.reach),
        "verdict": str(verdict),  # by the bands of reach
    }


def peer_statistics(spec: NetworkSpec, data: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """What the rules of training-time debuggers read at the first step, over weight tensors."""
    x, y = data[0][:PEER_BATCH], data[1][:PEER_BATCH]
    network = build(spec, seed=0, batch_size=PEER_BATCH)
    outputs: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda module, inputs, out: outputs.append(out.detach()))
    weights = [p for p in network.parameters() if p.dim() > 1]
    with undisturbed(network):
        loss = LOSSES["cross_entropy"](network(x), y, 0)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    flat = [torch.zeros(1) if g is None else g.double().flatten() for g in gradients]
    mean = [float(g.abs().mean()) for g in flat]
    rms = [float(g.square().mean().sqrt()) for g in flat]
    # Units of which fewer than 1 % of the outputs are active, as a share of a layer.
    silent = [float(((out > 0).double().mean(0) < 0.01).double().mean()) for out in outputs]
    return {
        "mean": [short(min(mean)), short(max(mean))],
        "rms": [short(min(rms)), short(max(rms))],
        "norm_first": short(float(flat[0].norm())),
        "norm_last": short(float(flat[-1].norm())),
        "zeros": short(sum(float((g == 0).sum()) for g in flat) / sum(g.numel() for g in flat)),
        "silent": short(max(silent, default=0.0)),
    }


def short(value: float | None) -> float | None:
    value = finite(value)
    return None if value is None else float(f"{value:.4g}")


def load(path: Path, seed: int = 0) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Outcome and profile of each network of an outcomes file."""
    known = {(line["id"], line["seed"]): line for line in read(PROFILES)}
    return [(line, known[line["id"], seed]) for line in read(path)]


def profile(line: dict[str, Any], seed: int) -> str:
    """The line of ``profiles.jsonl`` for one network and one seed."""
    torch.set_num_threads(1)
    spec = network_spec(line)
    found = {"id": line["id"], "seed": seed}
    found |= gradprobe_signals(make(spec, ProbeOptions(seed=seed)))
    if seed == 0:
        found["peers"] = peer_statistics(spec, digits())
    return json.dumps(found) + "\n"


def main() -> None:
    known = {(line["id"], line["seed"]) for line in read(PROFILES)}
    every = [
        (line, s) for path, seeds in SEEDS.items() for line in read(path) for s in range(seeds)
    ]
    todo = [(line, seed) for line, seed in every if (line["id"], seed) not in known]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool, PROFILES.open("a") as stream:
        for text in pool.map(profile, *zip(*todo, strict=True), chunksize=4) if todo else ():
            stream.write(text)
    print(f"{len(todo)} measured, {len(every)} in all")


if __name__ == "__main__":
    main()
