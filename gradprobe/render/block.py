"""``BlockProfile`` → the block drawn with its numbers, step by step, as one would on a board."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from gradprobe.measure.blocks.profile import BlockProfile
from gradprobe.numbers import name, number
from gradprobe.render.canvas import FAINT, NOTE, Style, paint, wrapped

_LEFT, _GAP = 38, 4  # columns of the branch, and between it and the skip
_BESIDE = 74  # columns from which the skip stands beside the branch, and not below it


def block_steps(block: BlockProfile, target: str, style: Style) -> list[str]:
    """The steps, each as text that ends in a newline."""
    steps: list[list[RenderableType]] = [
        [Text(name(style.safe(f"{target}, block {block.name}"), style.width), style="bold")],
        [Text("forward", style="bold"), *_forward(block, style)],
        [Text("backward", style="bold"), *_backward(block, style)],
    ]
    if block.jacobian is not None:
        steps.append([Text("Jacobian", style="bold"), *_jacobian(block, style)])
    steps.append([Text(line) for line in wrapped(meaning(block), style, 0)])
    return [paint(step, style) for step in steps]


def _forward(block: BlockProfile, style: Style) -> list[Text]:
    """The block from above: x splits, F on the left, the skip on the right, the sum."""
    layers = [
        (_padded(f"│   {name(style.safe(layer.kind), 18)}", "rms", layer.rms), "│")
        for layer in block.layers
    ]
    if block.branch_scale != 1:
        label = f"│   ×{number(block.branch_scale)}"
        layers.append((_padded(label, "rms", block.branch_rms), "│"))
    if block.residual:
        ends = [("│", "│ shortcut")] if block.shortcut else []
        branch = _padded("│ F(x)", "rms", block.branch_rms)
        ends.append((branch, f"│{_value('rms', block.skip_rms)}"))
        begin = ("│ F", f"│ skip ×{number(block.skip_scale)}")
        inside = _split([begin, *layers, *ends], style)
    else:
        inside = ["  │", "  │ F, without a skip", *(f"  {left}" for left, _ in layers), "  │"]
    first = f"  x{_value('rms', block.input_rms):>{_LEFT - 3}}"
    last = f"  y{_value('rms', block.output_rms):>{_LEFT - 3}}"
    return [Text(line) for line in (first, *inside, last)]


def _backward(block: BlockProfile, style: Style) -> list[Text]:
    """The block from below: the gradient arrives, splits, comes back both ways, adds up."""
    lines = [f"  ∂L/∂y{_value('norm', block.arriving):>{_LEFT - 7}}"]
    if block.residual:
        angle = f"  at {block.angle:.0f}° to each other" if block.angle is not None else ""
        branch = _padded("│ through F", "norm", block.branch_part)
        skip = f"│ through the skip{_value('norm', block.skip_part)}"
        lines += _split([(branch, skip)], style, angle)
    else:
        lines += ["  │", _padded("  │ through F", "norm", block.branch_part)]
    lines.append(f"  ∂L/∂x{_value('norm', block.total):>{_LEFT - 7}}")
    check = wrapped(f"parts - autograd's ∂L/∂x: {number(block.error)} of it", style, 2)
    return [*map(Text, lines), *(Text(line, style=FAINT) for line in check)]


def _jacobian(block: BlockProfile, style: Style) -> list[Text]:
    """The three numbers with what each means: beside it, or below where that does not fit."""
    jacobian = block.jacobian
    assert jacobian is not None
    words = "RMS gain of ∂F/∂x"
    if not block.residual or block.shortcut:
        words = f"RMS gain of J - {number(block.skip_scale if block.residual else 1)}"
    rows = (
        ("highway", jacobian.highway, 'tr(J)/n, the "+1" as it really is'),
        ("branch", jacobian.branch, words),
        ("gain", jacobian.gain, "RMS singular value; above 1 the gradient grows"),
    )
    lines = []
    for label, estimate, words in rows:
        error = f"±{number(estimate.error)}" if estimate.error else "exact"
        value = (f"{number(estimate.value):>9}", NOTE)
        line = Text.assemble(f"  {label:8}", value, f" {error:9}", (f" {words}", FAINT))
        if line.cell_len <= style.width:
            lines.append(line)
            continue
        lines.append(Text.assemble(f"  {label:8}", value, f" {error}"))
        lines += [Text(below, style=FAINT) for below in wrapped(words, style, 4)]
    return lines


def meaning(block: BlockProfile) -> str:
    """One sentence on what the numbers mean for this block."""
    if block.jacobian is None:
        share = number(block.total / block.arriving if block.arriving else 0.0)
        leaves = f"its gradient leaves with {share} of the norm that arrived"
        return f"The block changes the shape; {leaves}."
    gain, highway = block.jacobian.gain.value, block.jacobian.highway.value
    effect = f"makes the gradient {number(gain)} times as large"
    if abs(gain - 1) < 0.005:
        effect = "keeps the gradient as it is"
    if block.residual and block.jacobian.branch.value == 0:
        return "The branch passes nothing yet: the block is its skip, and depth cannot hurt."
    if not block.residual:
        return (
            f"Without a skip the highway is {number(highway)}: all that returns is what F lets "
            f"through, and it {effect}; many such blocks raise that factor to their number."
        )
    if block.shortcut:
        return f"The skip has layers of its own; together with F the block {effect}."
    if abs(highway - block.skip_scale) < 0.25 * max(abs(block.skip_scale), 1e-12):
        scale = number(block.skip_scale)
        share = "the whole gradient" if block.skip_scale == 1 else f"{scale} times the gradient"
        return (
            f"The skip brings {share} back whatever F does; F adds a branch of gain "
            f"{number(block.jacobian.branch.value)}, and together the block {effect}."
        )
    return (
        f"The highway is {number(highway)}, not the skip's {number(block.skip_scale)}: F works "
        f"along or against the skip, and together the block {effect}."
    )


def _value(label: str, value: float) -> str:
    return f" {label} {number(value)}"


def _padded(label: str, word: str, value: float) -> str:
    return f"{label}{_value(word, value):>{max(1, _LEFT - 2 - len(label))}}"


def _split(pairs: list[tuple[str, str]], style: Style, after: str = "") -> list[str]:
    """The branch on the left and the skip on the right of each pair, from the split to the sum.

    Where both do not fit, the skip stands below the branch.
    """
    if style.width < _BESIDE:
        rule = "─" * (_LEFT - 3)
        skip = [f"  {right}" for _, right in pairs if right != "│"]
        branch = [f"  {left}" for left, _ in pairs if left != "│"]
        below = [after] if after else []
        return [f"  ├{rule}", *branch, f"  ├{rule}", *skip, f"  +{rule}", *below]
    rule = "─" * (_LEFT + _GAP - 3)
    lines = [f"  {left:{_LEFT - 2}}{' ' * _GAP}{right}" for left, right in pairs]
    return [f"  ├{rule}┐", *lines, f"  +{rule}┘{after}"]
