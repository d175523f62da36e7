"""A block → the steps in which it is shown: what happens, and the number that is measured there."""

from __future__ import annotations

from typing import NamedTuple

from gradprobe.measure.blocks.profile import BlockProfile
from gradprobe.numbers import number
from gradprobe.render.block import meaning


class Step(NamedTuple):
    """One step; ``part`` is the part of the picture that it is about."""

    part: str
    text: str
    quantity: str = ""
    value: str = ""


def steps_of(block: BlockProfile) -> list[Step]:
    """Forward from x to y, backward from y to x, and what the whole does."""
    return [*_forward(block), *_backward(block), *_whole(block)]


def _forward(block: BlockProfile) -> list[Step]:
    start = "x splits: one copy goes through F, the skip carries the other."
    text = start if block.residual else "x goes through F. There is no skip."
    steps = [Step("x", text, "RMS of x", number(block.input_rms))]
    steps += [
        Step(f"layer{index}", f"{layer.kind}", "RMS", number(layer.rms))
        for index, layer in enumerate(block.layers)
    ]
    if not block.residual:
        return [*steps, Step("y", "What F makes is y.", "RMS of y", number(block.output_rms))]
    scaled = "" if block.branch_scale == 1 else f", times {number(block.branch_scale)}"
    steps.append(Step("branch", f"F(x){scaled}", "RMS", number(block.branch_rms)))
    how = "through its own layers" if block.shortcut else f"times {number(block.skip_scale)}"
    steps.append(Step("skip", f"The skip brings x, {how}.", "RMS", number(block.skip_rms)))
    return [*steps, Step("y", "Their sum is y.", "RMS of y", number(block.output_rms))]


def _backward(block: BlockProfile) -> list[Step]:
    steps = [
        Step("arriving", "The gradient arrives at y.", "‖∂L/∂y‖", number(block.arriving)),
        Step("through", "What comes back through F.", "norm", number(block.branch_part)),
    ]
    if not block.residual:
        last = Step("total", "That is all that leaves.", "‖∂L/∂x‖", number(block.total))
        return [*steps, last]
    steps[0] = steps[0]._replace(text="The gradient arrives at y, and splits as x did.")
    steps.append(Step("back", "What the skip brings back.", "norm", number(block.skip_part)))
    angle = "" if block.angle is None else f", at {block.angle:.0f}° to each other"
    text = f"Both add up at x{angle}."
    return [*steps, Step("total", text, "‖∂L/∂x‖", number(block.total))]


def _whole(block: BlockProfile) -> list[Step]:
    gain = block.jacobian.gain.value if block.jacobian else None
    return [Step("whole", meaning(block), "gain" if gain is not None else "", number(gain))]
