"""Stand-ins for the libraries of models, with what is used of them, and a package with a prefix."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BLOCKS = """
from types import SimpleNamespace
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.norm(self.conv(x)).tanh()

class Tiny(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))
"""
TIMM = f"""{BLOCKS}
def list_models():
    return ["tiny", "huge"]

def create_model(model_name, pretrained=True, width=4, depth=3):
    assert not pretrained
    model = Tiny(4000 if model_name == "huge" else width, depth)
    model.default_cfg = {{"input_size": (3, 6, 7)}}
    return model.eval()  # as its pruned ones
"""
TORCHVISION = f"""{BLOCKS}
class Weights:
    DEFAULT = SimpleNamespace(transforms=lambda: SimpleNamespace(crop_size=[5], resize_size=[9]))
    def __iter__(self):
        return iter([self.DEFAULT])

def detector(*, weights=None, weights_backbone="DOWNLOAD", **kwargs):
    assert weights is None and weights_backbone is None
    return Tiny(4, 2)

class Scenes(Tiny):
    def forward(self, images, targets):
        assert all(2 * len(t["boxes"]) == len(t["labels"]) + len(t["masks"]) for t in targets)
        assert all((t["boxes"][:, :2] < t["boxes"][:, 2:]).all() for t in targets)
        return dict(loss=super().forward(images[0][None, :, :9, :9]).square().mean())

def scenes(*, weights=None, **kwargs):
    return Scenes(4, 2)

class Flow(Tiny):
    def forward(self, image1, image2):
        assert image1.shape == image2.shape and image1.shape[1] == 3
        return super().forward((image2 - image1)[..., :9, :9])

def flow(*, weights=None, **kwargs):
    return Flow(4, 2)

scenes.__module__ = "torchvision.models.detection.scenes"
flow.__module__ = "torchvision.models.optical_flow.flow"
BUILDERS = dict(detector=detector, scenes=scenes, flow=flow)

def list_models():
    return list(BUILDERS)

def get_model_builder(name):
    return BUILDERS[name]

def get_model(name, **arguments):
    return BUILDERS[name](**arguments)

def get_model_weights(name):
    return Weights()
"""
ACME = f"""{BLOCKS}
from gradprobe.errors import InputError
from gradprobe.spec.network import CodeSpec, InputSpec, LayerSpec, NetworkSpec, TensorSpec

def load(target, options):
    name = target.partition(":")[2]
    if name == "code":
        inputs = (TensorSpec((2, 3, 4, 4)),)
        return CodeSpec("acme_models:Tiny", {{"width": 4, "depth": 1}}, inputs=inputs)
    if name == "wrong":
        raise InputError("acme has no wrong")
    if name == "text":
        return name
    layers = (LayerSpec("Linear", {{"out_features": 4}}),) * int(name)
    return NetworkSpec(InputSpec((4,)), layers, source=target)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages, as one that pip installs into, and an empty working directory."""
    packages, work = tmp_path / "packages", tmp_path / "work"
    work.mkdir()
    (packages / "torchvision").mkdir(parents=True)
    (packages / "timm.py").write_text(TIMM)
    (packages / "torchvision" / "__init__.py").touch()
    (packages / "torchvision" / "models.py").write_text(TORCHVISION)
    (packages / "acme_models.py").write_text(ACME)
    metadata = packages / "acme-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[gradprobe.sources]\nacme = acme_models:load\n")
    for name in [n for n in sys.modules if n.split(".")[0] in ("timm", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = set(sys.modules)
    yield packages
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("timm", "torchvision", "acme_models"):
            del sys.modules[name]
