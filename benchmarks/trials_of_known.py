"""Does the trial clear published networks that train, and fail plain ones that do not?

    python benchmarks/trials_of_known.py [NAME …]

Each takes 16 noise images of 64 pixels, or of the fewest that it can take. Those of timm and
torchvision are left out where these are not installed. That deep plain stacks do not train,
BatchNorm or not, is in He et al. 2016 (section 1); that VGG-19 had to be begun from a shallower
one's weights, in Simonyan and Zisserman 2015 (section 3.1).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

import gradprobe

SAMPLES, SIZE, CLASSES = 16, 64, 10
LARGER = {"inception_v4": 96}  # the least that it takes
VGG_19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions, by size


def plain(depth: int, norm: bool, he: bool = False, width: int = 32) -> nn.Module:
    """Convolutions and ReLUs without a skip; pooled, and a linear head."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 7, stride=4, padding=3)]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=not norm)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.ReLU()]
    if he:
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return headed(layers, width)


def headed(layers: Sequence[nn.Module], width: int) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def vgg_19() -> nn.Module:
    """Without BatchNorm, with torch's own init; one linear layer instead of three."""
    layers: list[nn.Module] = []
    before = 3
    for width, count in VGG_19:
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    return headed(layers, before)


class Skip(nn.Module):
    """x + BatchNorm(Conv(ReLU(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.branch(x)
        return out


def with_skips(depth: int, width: int = 32) -> nn.Module:
    stem = nn.Conv2d(3, width, 7, stride=4, padding=3)
    return headed([stem, *(Skip(width) for _ in range(depth))], width)


def of_torchvision(name: str) -> nn.Module:
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, num_classes=CLASSES)
    return model


def of_timm(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, num_classes=CLASSES)
    return model


TIMM = "regnety_004 mobilenetv1_100 selecsls42 dla34 dpn68 resnet50 inception_v4".split()
TRAIN: dict[str, Callable[[], nn.Module]] = {
    "60 with skips, BatchNorm": partial(with_skips, 60),
    "ShuffleNetV2": partial(of_torchvision, "shufflenet_v2_x1_0"),
    **{name: partial(of_timm, name) for name in TIMM},
}
DO_NOT: dict[str, Callable[[], nn.Module]] = {
    "40 plain": partial(plain, 40, norm=False),
    "40 plain, He init": partial(plain, 40, norm=False, he=True),
    "60 plain, BatchNorm": partial(plain, 60, norm=True),
    "100 plain, BatchNorm": partial(plain, 100, norm=True),
    "VGG-19 without BatchNorm": vgg_19,
}


def probed(make: Callable[[], nn.Module], size: int) -> str:
    """The verdict on a network, and whether it learned its batch; or why there is no network."""
    torch.manual_seed(0)
    try:
        model = make()
    except ImportError as error:
        return f"left out: {error}"
    start = time.perf_counter()
    report = gradprobe.probe(model, torch.randn(SAMPLES, 3, size, size), deep=True, overfit=True)
    trial = report.trial
    assert trial is not None
    course = trial.learned
    tried = "learns nothing"
    if course:
        tried = f"learns: {course.optimizer} {course.rate:g}, {course.steps} steps"
    codes = " ".join(sorted({finding.name for finding in report.findings}))
    seconds = time.perf_counter() - start
    return f"{report.verdict:14}{tried:34}{seconds:6.0f} s  {codes}"


def main() -> None:
    torch.set_num_threads(1)
    chosen = sys.argv[1:]
    for title, networks in (("train", TRAIN), ("do not train", DO_NOT)):
        print(title)
        for name, make in networks.items():
            if not chosen or name in chosen:
                print(f"  {name:28}{probed(make, LARGER.get(name, SIZE))}", flush=True)


if __name__ == "__main__":
    main()
