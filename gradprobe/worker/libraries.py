"""``timm:NAME`` or ``torchvision:NAME`` → what builds it, with random weights and offline."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradprobe.errors import InputError, suggestion
from gradprobe.spec.options import Limits
from gradprobe.spec.sources.named import LIBRARIES
from gradprobe.worker.blame import step
from gradprobe.worker.exchange import Request
from gradprobe.worker.names import find
from gradprobe.worker.process import Note

if TYPE_CHECKING:
    from torch import Tensor, nn

_BYTES_PER_WEIGHT = 8  # itself and its gradient, in float32
_SIDE = 320  # of an image for a detector
_OBJECTS = (0.07, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)  # in it, by their own sides
_FRAMES = 16  # of a video, about which torchvision's metadata says nothing


def builder(request: Request, note: Note) -> Any:
    """What makes the model that ``request`` names, or another package's own function for that.

    Raises:
        InputError: the library is not there, or has no such model; suggests the nearest.
    """
    library, _, name = request.target.partition(":")
    if library not in LIBRARIES:
        return find(request.target, note)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with step(note, f"importing {library}"):
        try:
            import_module(library)
        except ModuleNotFoundError as error:
            if error.name not in LIBRARIES:
                raise
            hint = f"pip install 'gradprobe[{library}]', or pip install {library}"
            raise InputError(f"{request.target} needs {error.name}", hint=hint) from error
    make = _timm(name) if library == "timm" else _torchvision(name)

    def build(**arguments: Any) -> nn.Module:
        with _within(request.options.limits):
            return make(**arguments).train()  # timm's pruned networks come in eval mode

    return build


def _timm(name: str) -> Callable[..., nn.Module]:
    timm: Any = import_module("timm")
    _require("timm", name.partition(".")[0], timm.list_models())
    return lambda **arguments: timm.create_model(name, pretrained=False, **arguments)


def _torchvision(name: str) -> Callable[..., nn.Module]:
    models: Any = import_module("torchvision.models")
    _require("torchvision", name, models.list_models())
    # A detector's backbone comes with weights unless it is told otherwise.
    taken = inspect.signature(models.get_model_builder(name)).parameters
    none = dict.fromkeys({"weights", "weights_backbone"} & taken.keys())

    def make(**arguments: Any) -> nn.Module:
        model: nn.Module = models.get_model(name, **none, **arguments)
        model.default_cfg = {"input_size": _sizes(models, name)}  # type: ignore[assignment]
        if given := _GIVEN.get(_family(models, name)):
            model.example_input_array = given()  # type: ignore[assignment]
        return model

    return make


def _scenes() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images with an object at each scale of a detector's anchors, in one corner."""
    import torch

    sides = torch.tensor(_OBJECTS)[:, None] * _SIDE
    boxes = torch.cat([torch.zeros(len(sides), 2), sides, sides], 1)
    target = {
        "boxes": boxes,
        "labels": torch.ones(len(sides), dtype=torch.int64),
        "masks": torch.ones(len(sides), _SIDE, _SIDE, dtype=torch.uint8),
        "keypoints": torch.tensor([1.0, 1.0, 1.0]).repeat(len(sides), 17, 1),
    }
    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(3, _SIDE, _SIDE, generator=draw) for _ in range(2)]
    return images, [dict(target), dict(target)]


def _frames() -> tuple[Tensor, Tensor]:
    """Two images each, between which an optical flow is."""
    import torch

    draw = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 2, 3, _SIDE, _SIDE, generator=draw) * 2 - 1
    return first, second


# What a family of torchvision is called with, where that is not one tensor.
_GIVEN: dict[str, Callable[[], tuple[Any, ...]]] = {
    "detection": _scenes,
    "optical_flow": _frames,
}


def _sizes(models: Any, name: str) -> tuple[int, ...] | None:
    """One sample's shape, by what the weights' own transforms make of an image or a video."""
    weights = models.get_model_weights(name)
    chosen = getattr(weights, "DEFAULT", None) or next(iter(weights), None)
    transforms = chosen.transforms() if chosen else None
    size = getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", None)
    if not size:
        return None
    height, width = (size * 2)[:2]
    return (3, *([_FRAMES] if _family(models, name) == "video" else []), height, width)


def _family(models: Any, name: str) -> str:
    """The folder of its builder, as ``detection``, or the file: those of images have no folder."""
    module: str = models.get_model_builder(name).__module__
    return module.removeprefix("torchvision.models.").partition(".")[0]


def _require(library: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = suggestion(name, names)
        raise InputError(f"{library} has no model '{name}'", hint=near or f"it has {len(names)}")


@contextmanager
def _within(limits: Limits) -> Iterator[None]:
    """Refuse a network at the first parameter that is one too many, before the next is made."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    count = 0

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        count += parameter.numel() if parameter is not None else 0
        if count > limits.parameters:
            hint = "--max-parameters allows more"
            raise InputError(f"it has more than {limits.parameters:,} parameters", hint=hint)
        if count * _BYTES_PER_WEIGHT > limits.memory:
            what = f"weights and gradients would take more than {limits.memory / 2**30:.3g} GiB"
            raise InputError(what, hint="--max-memory allows more")

    handle = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()
