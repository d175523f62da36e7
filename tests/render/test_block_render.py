"""What `block` and `paths` show: from values made by hand, and from the real commands.

``GRADPROBE_OVERWRITE=1 pytest tests/render/test_block_render.py`` writes the golden files anew. The
numbers of the real commands are not frozen: torch computes them again, another way.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.blocks import (
    BLOCKS,
    FEW,
    LONG,
    MANY,
    NOTHING,
    PATHS,
    PLAIN,
    RESHAPING,
    RESIDUAL,
    SCALED,
    SOME,
    ZERO,
)
from helpers.commands import Result
from helpers.oracle import all_paths, dense_jacobian, grouped, links, says, values
from helpers.places import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from torch import Tensor

from gradprobe.cli.main import main
from gradprobe.measure.blocks.profile import (
    BlockProfile,
    BranchLayer,
    Estimate,
    JacobianProfile,
    PathProfile,
)
from gradprobe.model.make import make
from gradprobe.render.block import block_steps
from gradprobe.render.canvas import Style
from gradprobe.render.paths import render_paths, render_paths_json
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.vocabulary import COMBINATORS
from gradprobe.tasks.targets import load_spec

OVERWRITE = bool(os.environ.get("GRADPROBE_OVERWRITE"))


def render_block(block: BlockProfile, target: str, style: Style | None = None) -> str:
    """All steps, one below the other, as the command shows them."""
    return "\n".join(block_steps(block, target, style or Style()))


SGR = re.compile(r"\x1b\[[0-9;]*m")
WIDTHS = (80, 120)
GOLDEN_WIDTHS = (40, *WIDTHS, 140, 200)

GOLDENS: dict[str, tuple[Callable[[Style], str], Style]] = {
    **{
        f"block_{name}.{width}": (lambda s, b=block: render_block(b, "net.yaml", s), Style(width))
        for name, block in BLOCKS.items()
        for width in GOLDEN_WIDTHS
    },
    **{
        f"paths_{name}.{width}": (lambda s, p=paths: render_paths(p, "net.yaml", s), Style(width))
        for name, paths in PATHS.items()
        for width in GOLDEN_WIDTHS
    },
    "block_scaled.ascii": (lambda s: render_block(SCALED, "net.yaml", s), Style(80, ascii=True)),
    "block_residual.colour": (
        lambda s: render_block(RESIDUAL, "net.yaml", s),
        Style(80, color=True),
    ),
    "paths_many.ascii": (lambda s: render_paths(MANY, "net.yaml", s), Style(80, ascii=True)),
    "paths_few.colour": (lambda s: render_paths(FEW, "net.yaml", s), Style(80, color=True)),
    "paths_many.all": (
        lambda s: render_paths(MANY, "net.yaml", s, everything=True),
        Style(120),
    ),
    "paths_some.json": (lambda s: render_paths_json(SOME, "net.yaml", {"gradprobe": "1"}), Style()),
}


def sound(text: str, style: Style) -> None:
    """What holds for every text: whole lines, none too wide, no blanks at their ends."""
    assert text.endswith("\n")
    for line in text.split("\n"):
        bare = SGR.sub("", line)
        assert bare == bare.rstrip()
        assert cell_len(bare) <= style.width
        assert bare.isprintable()
    if style.ascii:
        assert text.isascii()
        assert "\\u" not in text
    if not style.color:
        assert "\x1b" not in text


@pytest.mark.parametrize("name", GOLDENS)
def test_the_output_is_the_golden_one(name: str) -> None:
    render, style = GOLDENS[name]
    text = render(style)
    sound(text, style)
    path = GOLDEN / f"{name}.txt"
    if OVERWRITE:
        path.write_text(text, encoding="utf-8", newline="")
    assert text == path.read_bytes().decode()


def test_there_is_no_golden_file_too_many() -> None:
    found = {path.stem for kind in ("block_*", "paths_*") for path in GOLDEN.glob(f"{kind}.txt")}
    assert found == set(GOLDENS)


@pytest.mark.parametrize("block", BLOCKS)
def test_no_word_and_no_number_of_a_block_is_lost_at_40_columns(block: str) -> None:
    narrow, wide = (
        set(re.findall(r"[^\s│├┐┘─]+", render_block(BLOCKS[block], "net.yaml", Style(width))))
        for width in (40, 200)
    )
    assert narrow == wide


@pytest.mark.parametrize("paths", PATHS)
def test_the_check_of_paths_is_whole_at_40_columns(paths: str) -> None:
    narrow, wide = (
        " ".join(render_paths(PATHS[paths], "net.yaml", Style(width)).split())
        for width in (40, 200)
    )
    assert narrow.endswith(wide.rpartition(". ")[2].rpartition(" left out")[2])


# ---- the drawing

RIGHT = "│┐┘|"


def drawing(text: str, start: str, end: str) -> list[str]:
    """The lines from the one that splits the way to the one that joins it again."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    last = next(i for i, line in enumerate(lines) if i > first and line.startswith(end))
    return lines[first : last + 1]


def aligned(text: str, ascii_only: bool = False) -> None:
    """Each half of a residual block: the skip is one straight line, and so is the branch."""
    corner, dash = ("+", "-") if ascii_only else ("├", "─")
    halves = text.split("backward" if "\nbackward\n" in text else "\n\n")
    assert len(halves) >= 2
    for half in halves[:2]:
        lines = drawing(half, f"  {corner}{dash}", f"  +{dash}")
        column = len(re.match(rf"  .{dash}+.", lines[0])[0]) - 1  # type: ignore[index]
        assert len(lines) >= 3
        for line in lines:
            assert line[2] in "│├+|"
            assert len(line) > column
            assert line[column] in RIGHT + "+"
            assert line[column - 1] in (" ", dash)
        for line in lines[1:-1]:
            assert line[column] in "│|"
            left = line[:column].rstrip()
            assert left.count("│") + left.count("|") == 1


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize(
    "block", [RESIDUAL, ZERO, SCALED, LONG], ids=["residual", "zero", "scaled", "long"]
)
def test_the_skip_is_a_straight_line(block: BlockProfile, width: int, ascii_only: bool) -> None:
    style = Style(width, ascii=ascii_only)
    text = render_block(block, "net.yaml", style)
    sound(text, style)
    aligned(text, ascii_only)


SIZES = st.one_of(
    st.floats(min_value=0, max_value=1e308),
    st.sampled_from([0.0, 1.0, 0.577, 0.00123, 1234.5, 1.2e-12, 3.4e-200, 5.6e-205, 5.6e200]),
    st.sampled_from([math.nan, math.inf]),
)
SCALES = st.one_of(st.sampled_from([1.0, 0.5, -1.0, 0.0]), st.floats(-1e30, 1e30))
WORDS = sorted([*LAYERS, *COMBINATORS], key=len)
KINDS = st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS[-12:]))


@st.composite
def blocks(draw: st.DrawFn) -> BlockProfile:
    residual = draw(st.booleans())
    highway = draw(st.one_of(SIZES, SIZES.map(lambda x: -x)))
    estimates = [Estimate(x, draw(SIZES)) for x in (highway, draw(SIZES), draw(SIZES))]
    names = draw(st.lists(KINDS, min_size=1, max_size=4))
    layers = [BranchLayer(f"1.0.{i}", kind, draw(SIZES)) for i, kind in enumerate(names)]
    norms = [draw(SIZES) for _ in range(9)]
    return BlockProfile(
        draw(st.sampled_from(["1.10", "0", "encoder." * 20, "a\x1b[31mb"])),
        "residual",
        residual,
        draw(SCALES) if residual else 0.0,
        draw(SCALES) if residual else 1.0,
        residual and draw(st.booleans()),
        tuple(layers),
        *norms[:8],
        draw(st.one_of(st.none(), st.floats(-1, 1))),
        norms[8],
        draw(st.sampled_from([None, JacobianProfile(*estimates)])),
    )


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(blocks(), st.sampled_from(WIDTHS), st.booleans())
def test_every_block_is_drawn_straight_and_within_the_width(
    block: BlockProfile, width: int, ascii_only: bool
) -> None:
    style = Style(width, ascii=ascii_only)
    text = render_block(block, "some/where/net.yaml", style)
    sound(text, style)
    if block.residual:
        aligned(text, ascii_only)


@pytest.mark.parametrize(
    "block",
    [RESIDUAL, SCALED, PLAIN, ZERO, LONG],
    ids=["residual", "scaled", "plain", "zero", "long"],
)
def test_the_three_numbers_of_the_jacobian_end_in_one_column(block: BlockProfile) -> None:
    text = render_block(block, "net.yaml")
    lines = text[text.index("\nJacobian\n") :].splitlines()[2:5]
    columns = [re.match(r"  \w+ +(\S+)( (±\S+|exact) +)\S", line) for line in lines]
    assert all(columns)
    assert len({column.end(1) for column in columns if column}) == 1
    assert len({column.end(2) for column in columns if column}) == 1


def test_each_step_is_a_part_of_its_own() -> None:
    for block in BLOCKS.values():
        steps = block_steps(block, "net.yaml", Style())
        assert all(step.endswith("\n") for step in steps)
        assert len(steps) == (5 if block.jacobian else 4)


def test_what_it_means_fits_the_numbers() -> None:
    """The last sentence says nothing that the numbers above it do not."""

    def meaning(block: BlockProfile) -> str:
        return " ".join(block_steps(block, "net.yaml", Style())[-1].split())

    assert "depth cannot hurt" in meaning(ZERO)
    assert "×" not in meaning(ZERO)
    assert "Without a skip" in meaning(PLAIN)
    assert "0.551 times as large" in meaning(PLAIN)
    assert "leaves with 0.857 of the norm" in meaning(RESHAPING)
    assert "branch of gain 0.204" in meaning(RESIDUAL)
    # No gradient arrived at all: that says nothing about the branch, whose gain is 0.204.
    unreached = replace(
        RESIDUAL, arriving=0.0, skip_part=0.0, branch_part=0.0, total=0.0, cosine=None, error=0.0
    )
    assert "passes nothing yet" not in meaning(unreached)
    # Layers on the skip change what it brings back.
    projected = replace(RESIDUAL, shortcut=True, skip_part=0.2112)
    assert "The skip brings back 1 of the gradient" not in meaning(projected)
    assert "not the skip's 0.500" not in meaning(SCALED)


def test_the_words_beside_branch_are_true() -> None:
    """Without a skip F is the block itself: what is measured against 1 is not ∂F/∂x."""
    text = render_block(PLAIN, "net.yaml")
    [line] = [line for line in text.splitlines() if line.startswith("  branch")]
    assert "RMS gain of ∂F/∂x" not in line


# ---- paths


def bars(text: str) -> list[tuple[int, str]]:
    return [(len(m[0]), m[0]) for m in re.finditer(r"[█▉▊▋▌▍▎▏]+", text)]


@pytest.mark.parametrize("width", [60, *WIDTHS])
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("everything", [False, True])
def test_paths_within_the_width(name: str, width: int, everything: bool) -> None:
    text = render_paths(PATHS[name], "net.yaml", Style(width), everything=everything)
    sound(text, Style(width))
    lines = text.splitlines()
    assert lines[2].split() == ["branches", "paths", "norm", "share"]
    assert width < 80 or "the clean 1·1·…·1" in lines[3]


@pytest.mark.parametrize("width", [40, 50])
def test_no_number_is_cut_short_where_there_is_little_room(width: int) -> None:
    """A column may go; a number that lost its last digits would be another number."""
    for line in render_paths(FEW, "net.yaml", Style(width)).splitlines():
        if re.match(r" *\d+ ", line):
            for word in re.findall(r"\d*\.\d+", line):
                assert word in {"0.568", "0.913", "0.440", "0.102", "0.00870"}


def test_the_longest_bar_is_the_largest_share() -> None:
    text = render_paths(MANY, "net.yaml", Style(80), everything=True)
    drawn = [bar for bar, _ in bars(text)]
    assert drawn.index(max(drawn)) in (7, 8)  # of C(100, j) 0.08^j the largest is j = 7
    assert len([line for line in text.splitlines() if re.match(r" +\d+ ", line)]) == 101


def test_what_is_folded_away_is_counted() -> None:
    text = render_paths(MANY, "net.yaml", Style(80))
    rows = [line.split() for line in text.splitlines() if re.match(r" *[\d⋮…]+ ", line)]
    shown = [int(row[0]) for row in rows if row[0].isdigit()]
    folded = [row[1] if row[0] == "⋮" else row[0] for row in rows if not row[0].isdigit()]
    gaps = [tuple(map(int, gap.split("…"))) for gap in folded]
    told = set(shown)
    for gap in gaps:
        told |= set(range(gap[0], gap[-1] + 1))
    assert told == set(range(101))
    low, high = MANY.effective
    assert set(range(low, high + 1)) <= set(shown)


def test_every_share_is_shown_or_counted() -> None:
    """A thousand blocks: no more rows than fit a screen, every length named or in a gap."""
    wide = PathProfile(
        1000, tuple(0.5 ** abs(j - 500) ** 0.5 for j in range(1001)), 1, 0, None, "0"
    )
    lines = render_paths(wide, "net.yaml", Style(80)).splitlines()
    assert len(lines) <= 40
    sound("\n".join(lines) + "\n", Style(80))


def test_no_gradient_has_no_range_of_lengths() -> None:
    text = render_paths(NOTHING, "net.yaml")
    assert "through 3 to 3" not in text


def test_a_range_of_lengths_does_not_stand_where_a_norm_does() -> None:
    """Under "norm" a lone 1 would be read as a norm of 1."""
    lines = render_paths(MANY, "net.yaml", Style(80)).splitlines()
    end = lines[2].index("norm") + len("norm")
    for line in lines[3:]:
        if line.lstrip().startswith("⋮"):
            assert line[:end].split() == ["⋮"]


def test_the_story_of_some_of_the_paths_is_not_told_of_all() -> None:
    """Of 20 branches, 0 to 3 were looked at: that is no average over the gradient that arrives."""
    text = " ".join(render_paths(SOME, "net.yaml").split())
    assert "The gradient that arrives has gone through 1.86 of 20 branches on average" not in text
    assert "left out: paths through more than 3 branches, norm 2.01 of 3.29" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_paths_of_a_long_name(width: int) -> None:
    text = render_paths(FEW, "deep/" * 40 + "net.yaml", Style(width))
    sound(text, Style(width))
    assert text.splitlines()[0].endswith("2^4 paths to row 0")


# ---- the real commands, their numbers computed again

OPTIONS = ["--depth", "3", "--width", "8", "--batch-size", "5", "--seed", "2"]
NUMBER = r"(-?[\d.,]+(?:e-?\d+)?)"


def numbers(text: str, label: str, word: str = "") -> list[str]:
    """The numbers that stand behind ``label``, and ``word`` where there is one."""
    between = rf"[^\n]*?\b{word} " if word else r" +"
    return re.findall(rf"{label}{between}{NUMBER}", text)


class Stack:
    """The middle block of a stack of three, in nothing but matrix products and tanh."""

    def __init__(self, target: str) -> None:
        spec = load_spec(target, StackOptions(depth=3, width=8))
        options = ProbeOptions(seed=2, batch_size=5, dtype="float64")
        subject = make(spec, options)
        network, x, self.loss = subject.model, subject.args[0], subject.loss
        self.skip = 1.0 if target == "residual" else 0.0
        weights = {name: p.detach() for name, p in network.named_parameters()}
        self.stem, self.head = (
            (weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in ("0", "2")
        )
        self.blocks = [(weights[f"1.{k}.0.weight"], weights[f"1.{k}.0.bias"]) for k in range(3)]
        self.x = self.block(F.linear(x, *self.stem), 0)
        self.linear = self.x @ self.blocks[1][0].T + self.blocks[1][1]
        self.y = self.block(self.x, 1)

    def block(self, x: Tensor, k: int) -> Tensor:
        weight, bias = self.blocks[k]
        return self.skip * x + torch.tanh(x @ weight.T + bias)

    def above(self, y: Tensor) -> Tensor:
        return self.loss(F.linear(self.block(y, 2), *self.head))

    def arriving(self) -> Tensor:
        leaf = self.y.clone().requires_grad_()
        (found,) = torch.autograd.grad(self.above(leaf), leaf)
        return found

    def through_branch(self) -> Tensor:
        """Jᵀ of tanh(Wx + b) by hand: Wᵀ diag(1 - tanh²)."""
        slope = 1 - torch.tanh(self.linear).square()
        return (self.arriving() * slope) @ self.blocks[1][0]


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("target", ["plain", "residual"])
def test_block_shows_what_torch_computes(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, target: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = run("block", target, *OPTIONS)
    assert (done.code, done.err) == (0, "")
    text = done.out
    sound(text, Style(width))
    assert text.splitlines()[0] == f"{target}, block 1.1"
    forward, backward = text[: text.index("backward")], text[text.index("backward") :]
    stack = Stack(target)
    arriving, branch = stack.arriving(), stack.through_branch()

    def shows(part: str, label: str, word: str, *expected: float) -> None:
        found = numbers(part, label, word)
        assert len(found) == len(expected), (label, found)
        for shown, value in zip(found, expected, strict=True):
            assert says(shown, value), (label, shown, value)

    shows(forward, r"\n  x", "rms", rms(stack.x))
    shows(forward, r"   Linear", "rms", rms(stack.linear))
    shows(forward, r"   Tanh", "rms", rms(torch.tanh(stack.linear)))
    shows(forward, r"\n  y", "rms", rms(stack.y))
    shows(backward, r"\n  ∂L/∂y", "norm", norm(arriving))
    shows(backward, r"through F", "norm", norm(branch))
    total = stack.skip * arriving + branch
    shows(backward, r"\n  ∂L/∂x", "norm", norm(total))
    if target == "residual":
        aligned(text)
        shows(forward, r"F\(x\)", "rms", rms(torch.tanh(stack.linear)))
        [skip] = re.findall(rf"F\(x\).*│ rms {NUMBER}", forward)
        assert says(skip, rms(stack.x))
        shows(backward, r"through the skip", "norm", norm(arriving))
        cosine = float((arriving * branch).sum()) / norm(arriving) / norm(branch)
        [angle] = re.findall(r"at (\d+)° to each other", backward)
        assert abs(int(angle) - math.degrees(math.acos(cosine))) <= 0.5 + 1e-9

    dense = dense_jacobian(lambda x: stack.block(x, 1), stack.x)
    n = len(dense)
    rest = dense - torch.eye(n, dtype=dense.dtype)  # the skip scale: 1 unless the spec says else
    shows(backward, r"\n  highway", "", float(dense.trace()) / n)
    shows(backward, r"\n  branch", "", norm(rest) / math.sqrt(n))
    shows(backward, r"\n  gain", "", norm(dense) / math.sqrt(n))
    assert backward.count(" exact ") == 3
    [error] = re.findall(rf"autograd's ∂L/∂x: {NUMBER} of it", backward)
    assert float(error) < 1e-12


@pytest.mark.parametrize("width", WIDTHS)
def test_paths_shows_what_torch_computes(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = run("paths", "residual", *OPTIONS)
    assert (done.code, done.err) == (0, "")
    sound(done.out, Style(width))
    spec = load_spec("residual", StackOptions(depth=3, width=8))
    prepared = make(spec, ProbeOptions(seed=2, batch_size=5, dtype="float64"))
    linear = {"Linear": {"out_features": 8}}
    layers = [linear, {"repeat": {"times": 3, "layers": [{"residual": [linear, "Tanh"]}]}}]
    chain = links(prepared.model, [*layers, {"Linear": {"out_features": 10}}])
    start = values(chain, prepared.args[0])[1]
    groups = [norm(group) for group in grouped(all_paths(chain[1:], start, prepared.loss))]
    lines = done.out.splitlines()
    assert lines[0] == "residual: 3 blocks, 2^3 paths to row 0"
    whole = math.fsum(groups)
    for j, (line, expected) in enumerate(zip(lines[3:7], groups, strict=True)):
        branches, paths, shown, share = line.split()[:4]
        assert (int(branches), int(paths)) == (j, math.comb(3, j))
        assert says(shown, expected)
        assert abs(float(share) - 100 * expected / whole) <= 0.5001
    mean = math.fsum(j * group for j, group in enumerate(groups)) / whole
    told = " ".join(lines[8:])
    [shown] = re.findall(rf"has gone through {NUMBER} of 3 branches", told)
    assert says(shown, mean)
    [low, high] = re.findall(r"95 % of it through (\d) to (\d)", told)[0]
    below = math.fsum(groups[: int(low)]) / whole
    above = math.fsum(groups[int(high) + 1 :]) / whole
    assert below < 0.025
    assert above <= 0.025
    [error] = re.findall(rf"autograd's gradient: {NUMBER} of its norm", done.out)
    assert float(error) < 1e-12


@pytest.mark.parametrize("width", WIDTHS)
def test_every_kind_of_block_and_path_fits_the_width(
    run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    width: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    attention = {"MultiheadAttention": {"num_heads": 2}}
    layers = [
        {"Linear": {"out_features": 4}},
        {"residual": {"layers": ["LayerNorm", attention], "skip_scale": 0.5, "branch_scale": 2}},
        {"residual": {"layers": ["Tanh"], "shortcut": [{"Linear": {"out_features": 4}}]}},
        {"LSTM": {"hidden_size": 5}},
        {"Linear": {"out_features": 2}},
    ]
    file = tmp_path / ("a_rather_long_name_for_a_network_that_somebody_wrote" * 2 + ".yaml")
    file.write_text(json.dumps({"input": {"shape": [6, 3]}, "layers": layers}))
    for row in ("1", "2", "3", "4"):
        done = run("block", file, "--row", row)
        assert done.code == 0, done.err
        sound(done.out, Style(width))
        if row in ("1", "2"):
            aligned(done.out)
    done = run("paths", file)
    assert done.code == 0
    sound(done.out, Style(width))


def test_an_ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same drawing in characters that every terminal has."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as stopped:
        main(["block", "residual", *OPTIONS])
    assert not stopped.value.code
    text = written.getvalue().decode("ascii")
    sound(text, Style(80, ascii=True))
    aligned(text, ascii_only=True)
    assert "?" not in text


def test_colour_is_for_those_who_ask(run: Callable[..., Result]) -> None:
    for command in ("block", "paths"):
        bare = run(command, "residual", *OPTIONS).out
        painted = run(command, "residual", *OPTIONS, "--color", "always").out
        assert "\x1b" not in bare
        assert "\x1b" in painted
        assert SGR.sub("", painted) == bare
