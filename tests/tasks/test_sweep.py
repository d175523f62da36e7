"""Over depth: the curves, the planning of a sweep, what it prints, and its command."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.commands import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from gradprobe.errors import InputError, Place
from gradprobe.model.build import build
from gradprobe.model.losses import projection
from gradprobe.numbers import number
from gradprobe.render.canvas import Style
from gradprobe.render.sweep import render_sweep, render_sweep_json
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks import sweep as sweeping
from gradprobe.tasks.curves import Point, Sweep, fit, greatest_healthy
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.sweep import Axes
from gradprobe.tasks.targets import load_spec
from gradprobe.verdict.report import Verdict

NAN = float("nan")
DEPTHS = (1, 2, 5, 10, 20, 50, 100)


def curve(
    depths: Sequence[int],
    reach: Callable[[int], float | None],
    verdict: Verdict = Verdict.HEALTHY,
    target: str = "plain",
) -> list[Point]:
    return [Point(target, (str(d),), d, reach(d), verdict) for d in depths]


ABOUT = TargetOptions()

# ---- what fits a curve


@pytest.mark.parametrize("factor", [0.141, 0.9, 0.99, 1.01, 1.445])
def test_an_exponential(factor: float) -> None:
    found = fit(curve(DEPTHS, lambda d: 3.0 * factor**d))
    assert found.kind == "exponential"
    assert found.factor == pytest.approx(factor, rel=1e-9)
    assert found.power is None


@pytest.mark.parametrize("power", [-2.0, -0.5, 0.5, 1.0, 3.0])
def test_a_polynomial(power: float) -> None:
    found = fit(curve(DEPTHS, lambda d: 0.3 * d**power))
    assert found.kind == "polynomial"
    assert found.power == pytest.approx(power, rel=1e-9)
    assert found.factor is None


@pytest.mark.parametrize("reach", [1.0, 0.5, 1e-9])
def test_a_flat_line(reach: float) -> None:
    found = fit(curve(DEPTHS, lambda d: reach))
    assert found == ("flat", 1.0, 0.0)
    wavy = fit(curve(DEPTHS, lambda d: reach * (1.05 if d % 2 else 0.95)))
    assert wavy.kind == "flat"


def test_growth_below_a_tenth_of_a_decade_is_flat() -> None:
    assert fit(curve((1, 10, 100), lambda d: 10 ** (0.09 * d / 100))).kind == "flat"
    assert fit(curve((1, 10, 100), lambda d: 10 ** (0.12 * d / 100))).kind == "exponential"


def test_what_is_no_reach_takes_no_part() -> None:
    holes = {2: NAN, 10: 0.0, 20: None, 50: math.inf}
    found = fit(curve(DEPTHS, lambda d: holes.get(d, 0.8**d)))
    assert found.kind == "exponential"
    assert found.factor == pytest.approx(0.8, rel=1e-9)


@pytest.mark.parametrize("reach", [NAN, 0.0, None, math.inf])
def test_nothing_to_fit(reach: float | None) -> None:
    assert fit(curve(DEPTHS, lambda d: reach)).kind == "none"
    assert fit(curve(DEPTHS, lambda d: 0.5 if d == 1 else reach)).kind == "none"
    assert fit([]).kind == "none"


def test_two_points_are_an_exponential() -> None:
    found = fit(curve((1, 11), lambda d: 0.5**d))
    assert found.kind == "exponential"
    assert found.factor == pytest.approx(0.5, rel=1e-12)


@given(
    st.floats(-3, 3).filter(lambda s: abs(s) > 0.02),
    st.lists(st.integers(1, 1000), min_size=3, max_size=9, unique=True),
    st.booleans(),
)
@settings(max_examples=60, derandomize=True, deadline=None, database=None)
def test_the_better_curve_wins(slope: float, depths: list[int], exponential: bool) -> None:
    """On points that lie on one curve exactly, that curve is found, whatever the depths."""
    span = max(depths) - min(depths)
    if exponential:
        rate = slope / span  # decades a block
        if abs(slope) < 0.11:
            return
        found = fit(curve(depths, lambda d: 10 ** (rate * d)))
        if found.kind == "exponential":
            assert found.factor == pytest.approx(10**rate, rel=1e-6)
        else:
            raise AssertionError(found)
    else:
        decades = abs(slope) * (math.log10(max(depths)) - math.log10(min(depths)))
        if decades < 0.11:
            return
        found = fit(curve(depths, lambda d: d**slope))
        assert found.kind == "polynomial"
        assert found.power == pytest.approx(slope, rel=1e-6)


def verdicts(*pairs: tuple[int, Verdict]) -> list[Point]:
    return [Point("plain", (str(d),), d, 1.0, verdict) for d, verdict in pairs]


def test_the_greatest_healthy_depth() -> None:
    good, weak, gone = Verdict.HEALTHY, Verdict.WEAK, Verdict.VANISHING
    assert greatest_healthy(verdicts((1, good), (5, good), (9, good))) == 9
    assert greatest_healthy(verdicts((1, good), (5, good), (9, gone))) == 5
    assert greatest_healthy(verdicts((1, good), (5, weak), (9, good))) == 1  # every depth up to it
    assert greatest_healthy(verdicts((1, weak), (5, good))) is None
    assert greatest_healthy(verdicts((9, gone), (1, good), (5, good))) == 5  # in any order
    assert greatest_healthy(verdicts((1, good), (5, Verdict.NON_FINITE))) == 1
    assert greatest_healthy([]) is None


# ---- a plain stack loses the gradient, a residual one does not


@pytest.mark.slow
def test_plain_is_gone_where_residual_lives(run: Callable[..., Result]) -> None:
    options = ["--depth", "1,10,100,1000", "--activation", "tanh"]
    done = run("sweep", "plain", "residual", *options, "--format", "json")
    assert (done.code, done.err) == (0, "")
    plain, residual = json.loads(done.out)["curves"]
    assert [plain["target"], residual["target"]] == ["plain", "residual"]
    assert [point["depth"] for point in plain["points"]] == [1, 10, 100, 1000]
    reach = [point["reach"] for point in plain["points"]]
    assert reach[0] > reach[1] > reach[2] > reach[3]
    assert reach[2] < 1e-20
    assert reach[3] == 0  # 0.58^1000 is below the smallest float32, and no NaN
    assert plain["points"][3]["verdict"] == "vanishing"
    assert (plain["fit"]["kind"], plain["healthy_up_to"]) == ("exponential", 1)
    assert plain["fit"]["factor"] == pytest.approx(0.577, rel=0.03)  # FACTS: 1/√3, less tanh'
    for point in residual["points"]:
        assert point["reach"] is not None
        assert 1e-2 < point["reach"] < math.inf
    assert residual["healthy_up_to"] >= 100


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_a_zero_initialised_stack_is_exactly_1_at_every_depth(
    run: Callable[..., Result], norm: str
) -> None:
    depths = "1,10,100,1000" if norm == "none" else "1,10,100"
    options = ["sweep", "residual", "--zero-init", "--depth", depths, "--norm", norm]
    options += ["--width", "8", "--batch-size", "8"]
    body = json.loads(run(*options, "--format", "json").out)
    [curve] = body["curves"]
    assert [point["reach"] for point in curve["points"]] == [1.0] * len(depths.split(","))
    assert curve["fit"] == {"kind": "flat", "factor": 1.0, "power": 0.0}
    assert {point["verdict"] for point in curve["points"]} == {"healthy"}
    lines = run(*options).out.splitlines()
    table = [line.split()[:2] for line in lines[1 : 1 + len(depths.split(","))]]
    assert table == [[depth, "1"] for depth in depths.split(",")]


@pytest.mark.parametrize(("activation", "depth"), [("tanh", 1000), ("relu", 50), ("gelu", 1)])
def test_output_and_gradient_pass_bit_for_bit(activation: str, depth: int) -> None:
    """A branch of zero adds exactly nothing, in float32 and on the way back too."""
    options = StackOptions(depth=depth, width=8, activation=activation, zero_init=True)
    network = build(load_spec("residual", options), seed=3, batch_size=5)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    stem = network.get_submodule("0")(x).detach().requires_grad_()
    top = network.get_submodule("1")(stem)
    assert torch.equal(top, stem)
    top.retain_grad()
    projection(network.get_submodule("2")(top), None, 0).backward()
    assert stem.grad is not None
    assert top.grad is not None
    assert bool(stem.grad.any())
    assert torch.equal(stem.grad, top.grad)


def test_a_point_is_what_probe_finds(run: Callable[..., Result]) -> None:
    options = ["--activation", "gelu", "--width", "24", "--seed", "5", "--norm", "layer"]
    swept = json.loads(
        run("sweep", "plain", "residual", *options, "--depth", "3,7", "--format", "json").out
    )
    for curve in swept["curves"]:
        for point in curve["points"]:
            depth = ["--depth", str(point["depth"])]
            alone = run("probe", curve["target"], *options, *depth, "--format", "json")
            assert json.loads(alone.out)["reach"] == point["reach"]
            assert json.loads(alone.out)["verdict"] == point["verdict"]


# ---- specs

SPEC = """\
input: {shape: [6]}
layers:
  - Linear: {out_features: 6}
  - repeat: {times: 2, layers: [Tanh]}
  - repeat:
      times: 3
      layers:
        - residual: [{Linear: {out_features: 6}}, Tanh]
  - Linear: {out_features: 2}
"""


def test_a_spec_is_deepened(run: Callable[..., Result], tmp_path: Path) -> None:
    """--depth is the times of its longest repeat; the others stay as they are."""
    file = tmp_path / "net.yaml"
    file.write_text(SPEC)
    done = run("sweep", file, "--depth", "1,4,9", "--format", "json")
    [curve] = json.loads(done.out)["curves"]
    assert curve["target"] == str(file)
    for point, depth in zip(curve["points"], (1, 4, 9), strict=True):
        deep = tmp_path / f"deep{depth}.yaml"
        deep.write_text(SPEC.replace("times: 3", f"times: {depth}"))
        alone = json.loads(run("probe", deep, "--format", "json", "--exit-zero").out)
        assert point["depth"] == depth
        assert point["reach"] == alone["reach"]
        assert len(alone["rows"]) == 4 + depth


def test_a_spec_beside_a_stack(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "net.yaml"
    file.write_text(SPEC)
    body = json.loads(run("sweep", "plain", file, "--depth", "1,2", "--format", "json").out)
    assert [curve["target"] for curve in body["curves"]] == ["plain", str(file)]
    assert [[p["depth"] for p in curve["points"]] for curve in body["curves"]] == [[1, 2], [1, 2]]


@pytest.mark.parametrize("depth", ["60000", "1000000000"])
def test_a_spec_is_not_deepened_beyond_what_can_be_built(tmp_path: Path, depth: str) -> None:
    """The cap on layers holds for a deepened spec as it does for one that is read, at once."""
    file = tmp_path / "net.yaml"
    file.write_text(SPEC)
    for target in ("residual", str(file)):
        with pytest.raises(InputError, match="50,000 layers"):
            sweeping.plan([target], ABOUT, Axes({"depth": [depth]}), ProbeOptions())


# ---- plans


def test_axes_of_one_value_are_settings() -> None:
    axes = {"depth": ["2", "3"], "width": ["5"], "activation": ["relu"], "gain": ["1.5"]}
    jobs, empty = sweeping.plan(["plain", "residual"], ABOUT, Axes(axes), ProbeOptions())
    assert empty == Sweep(("plain", "residual"), (("depth", ("2", "3")),), ())
    assert [(job.target, job.at, job.depth) for job in jobs] == [
        ("plain", ("2",), 2),
        ("plain", ("3",), 3),
        ("residual", ("2",), 2),
        ("residual", ("3",), 3),
    ]
    for job in jobs:
        assert job.spec.input.shape == (5,)
        weight = job.spec.init["Linear"]["weight"]
        assert weight.arguments["scale"] == pytest.approx(2.25)


def test_the_default_init_is_a_value_as_it_is_of_probe() -> None:
    jobs, _ = sweeping.plan(["plain"], ABOUT, Axes({"init": ["default", "zeros"]}), ProbeOptions())
    assert [list(job.spec.init) for job in jobs] == [[], ["Linear"]]


def test_gain_is_the_weights_deviation_times_the_root_of_fan_in() -> None:
    jobs, _ = sweeping.plan(
        ["plain"],
        TargetOptions(StackOptions(width=400, depth=1)),
        Axes({"gain": ["1.5"]}),
        ProbeOptions(),
    )
    network = build(jobs[0].spec, seed=0, batch_size=2)
    weight = network.get_submodule("1.0.0").weight.detach()
    assert float(weight.std()) * 20 == pytest.approx(1.5, rel=0.02)
    assert not bool(network.get_submodule("1.0.0").bias.any())


def test_two_axes_are_crossed() -> None:
    axes = {"depth": ["1", "2"], "gain": ["0.5", "1", "2"]}
    jobs, empty = sweeping.plan(["plain"], ABOUT, Axes(axes), ProbeOptions())
    assert empty.axes == (("depth", ("1", "2")), ("gain", ("0.5", "1", "2")))
    assert [job.at for job in jobs] == [(d, g) for d in ("1", "2") for g in ("0.5", "1", "2")]


def test_a_failure_survives_the_way_from_another_process() -> None:
    error = InputError("no such thing", place=Place("net.yaml", 3, 4), excerpt="  - x", hint="y")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InputError
    assert str(copy) == str(error)
    assert copy.exit_code == error.exit_code


@pytest.mark.slow
def test_two_processes_find_the_same(run: Callable[..., Result]) -> None:
    options = ["sweep", "plain", "residual", "--depth", "1,3", "--width", "8", "--format", "json"]
    one, two = run(*options, "--jobs", "1"), run(*options, "--jobs", "2")
    assert (two.code, two.err) == (0, "")
    assert two.out == one.out


# ---- the command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depth", "1,x"], "--depth: 'x' is not a whole number"),
        (["--depth", "0"], "--depth: '0' is not a whole number of at least 1"),
        (["--depth", "1,-2"], "--depth: '-2' is not"),
        (["--depth", "1.5"], "--depth: '1.5' is not"),
        (["--depth", "1e3"], "--depth: '1e3' is not"),
        (["--depth", "²"], "--depth: '²' is not"),
        (["--depth", "99999999999"], "--depth: '99999999999' is not"),
        (["--depth", "1,,2"], "an empty value in '1,,2'"),
        (["--depth", ""], "an empty value"),
        (["--depth", "2,1,2"], "a value stands twice"),
        (["--width", "0"], "--width: '0' is not"),
        (["--activation", "tahn,relu"], "did you mean 'tanh'?"),
        (["--init", "kaiming_nromal"], "did you mean 'kaiming_normal'?"),
        (["--gain", "x"], "--gain: 'x' is not a number"),
        (["--gain", "0"], "--gain: '0' is not a number between"),
        (["--gain", "nan"], "--gain: 'nan' is not"),
        (["--gain", "inf"], "--gain: 'inf' is not"),
        (["--gain", "1,-1"], "--gain: '-1' is not"),
        (["--gain", "1", "--init", "orthogonal"], "give one"),
        (["--depth", "1,2", "--width", "3,4", "--gain", "1,2"], "at most two axes"),
        (["--depth", "1,2", "--jobs", "0"], "--jobs"),
        (["--norm", "bath"], "--norm"),
        (["--depth", "60000"], "50,000 layers"),
    ],
)
def test_bad_values(run: Callable[..., Result], options: list[str], message: str) -> None:
    done = run("sweep", "plain", *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (["-", "-"], [], "named twice"),
        (["nowhere.yaml"], [], "cannot read nowhere.yaml"),
        (["SPEC"], ["--width", "3,4"], "--width varies built-in stacks only"),
        (["SPEC"], ["--depth", "1,2", "--gain", "1,2"], "--gain varies built-in stacks only"),
        (["FLAT"], [], "no repeat at its top level"),
        ([], [], "target"),
    ],
)
def test_bad_targets(
    run: Callable[..., Result],
    tmp_path: Path,
    targets: list[str],
    options: list[str],
    message: str,
) -> None:
    (tmp_path / "SPEC").write_text(SPEC)
    (tmp_path / "FLAT").write_text("input: {shape: [4]}\nlayers:\n  - Linear: {out_features: 4}\n")
    named = [str(tmp_path / t) if t in ("SPEC", "FLAT") else t for t in targets]
    done = run("sweep", *named, *options)
    assert (done.code, done.out) == (2, "")
    assert message.lower() in done.err.lower()


def test_too_many_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "MAX_POINTS", 5)
    axes = {"depth": ["1", "2"], "gain": ["1", "2", "3"]}
    with pytest.raises(InputError, match="more than 5 networks"):
        sweeping.plan(["plain"], ABOUT, Axes(axes), ProbeOptions())


def test_a_target_named_twice(run: Callable[..., Result]) -> None:
    """Refused, or swept once: not two curves with both curves' points in each."""
    done = run("sweep", "plain", "plain", "--depth", "1,2", "--width", "4", "--format", "json")
    assert done.code in (0, 2)
    if done.code == 0:
        for curve in json.loads(done.out)["curves"]:
            assert [point["depth"] for point in curve["points"]] == [1, 2]


def test_the_json(run: Callable[..., Result]) -> None:
    done = run("sweep", "plain", "--depth", "1,3", "--width", "4", "--format", "json")
    body = json.loads(done.out)
    assert list(body) == ["schema_version", "curves", "versions"]
    [curve] = body["curves"]
    assert list(curve) == ["target", "points", "healthy_up_to", "fit"]
    assert list(curve["points"][0]) == ["depth", "reach", "verdict"]
    assert list(curve["fit"]) == ["kind", "factor", "power"]
    again = run("sweep", "plain", "--depth", "1,3", "--width", "4", "--format", "json")
    assert again.out == done.out


def test_the_json_of_two_axes(run: Callable[..., Result]) -> None:
    options = ["--depth", "1,3", "--activation", "tanh,relu", "--width", "4"]
    body = json.loads(run("sweep", "residual", *options, "--format", "json").out)
    [curve] = body["curves"]
    at = [(point["depth"], point["activation"]) for point in curve["points"]]
    assert at == [(1, "tanh"), (1, "relu"), (3, "tanh"), (3, "relu")]
    assert curve["fit"] is None
    assert curve["healthy_up_to"] is None


def test_json_has_no_nan() -> None:
    points = [
        Point("plain", (str(d),), d, reach, Verdict.NON_FINITE)
        for d, reach in ((1, NAN), (2, math.inf), (3, None), (4, 0.0))
    ]
    made = Sweep(("plain",), (("depth", ("1", "2", "3", "4")),), tuple(points))
    text = render_sweep_json(made, {})
    [curve] = json.loads(text, parse_constant=pytest.fail)["curves"]
    assert [point["reach"] for point in curve["points"]] == [None, None, None, 0.0]
    assert curve["fit"]["kind"] == "none"


def test_two_axes_make_a_heat_map(run: Callable[..., Result]) -> None:
    options = ["--depth", "1,4", "--gain", "0.5,1,2", "--width", "8"]
    done = run("sweep", "plain", "residual", *options)
    assert done.code == 0
    maps = done.out.rstrip("\n").split("\n\n")
    body = json.loads(run("sweep", "plain", "residual", *options, "--format", "json").out)
    assert len(maps) == 2
    for text, curve in zip(maps, body["curves"], strict=True):
        head, top, *rows = text.splitlines()
        assert head.startswith(f"{curve['target']}: log10 of the reach, depth down, gain across")
        assert top.split() == ["0.5", "1", "2"]
        assert [row.split()[0] for row in rows] == ["1", "4"]
        shown = [cell for row in rows for cell in row.split()[1:]]
        assert shown == [f"{math.log10(point['reach']):.1f}" for point in curve["points"]]


def test_the_edge_of_chaos_is_between_its_sides(run: Callable[..., Result]) -> None:
    """Wide plain tanh nets: below gain 1 the gradient decays, well above it grows."""
    options = ["--depth", "20,30", "--gain", "0.5,3", "--width", "200", "--batch-size", "8"]
    body = json.loads(run("sweep", "plain", *options, "--format", "json").out)
    reach = {(p["depth"], p["gain"]): p["reach"] for p in body["curves"][0]["points"]}
    assert reach[30, "0.5"] < reach[20, "0.5"] < 1e-4
    assert reach[30, "3"] > reach[20, "3"] > 10


def test_a_zero_of_the_map_has_no_sign(run: Callable[..., Result]) -> None:
    options = ["--depth", "1,4", "--gain", "0.01,0.1", "--width", "8", "--seed", "3"]
    _, _, *rows = run("sweep", "residual", *options).out.splitlines()
    assert [row.split()[1:] for row in rows] == [["0.0", "0.0"]] * 2


# ---- the text, from sweeps made by hand


def swept(targets: int, depths: Sequence[int], reach: Callable[[int, int], float | None]) -> Sweep:
    names = tuple(f"specs/network_number_{i}.yaml" for i in range(targets))
    points = [p for i, t in enumerate(names) for p in curve(depths, lambda d, i=i: reach(i, d))]
    at = [points[i : i + len(depths)] for i in range(0, len(points), len(depths))]
    named = tuple(p._replace(target=t) for t, part in zip(names, at, strict=True) for p in part)
    return Sweep(names, (("depth", tuple(map(str, depths))),), named)


BAR = re.compile(r"[█▉▊▋▌▍▎▏]+|◄━*|not|finite|no|gradient|none")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("targets", [1, 2, 3, 4, 6, 7, 8, 9])
def test_every_number_of_the_table_is_whole(width: int, targets: int) -> None:
    """At every number of targets: a number cut short would be another number."""

    def reach(i: int, depth: int) -> float:
        return float(10.0 ** (-depth * (i + 1) / 40))

    made = swept(targets, (1, 30, 1000), reach)
    text = render_sweep(made, Style(width))
    assert all(len(line) <= width for line in text.splitlines())
    table = text[: text.index("│")]
    assert table.split()[0] == "depth"
    whole = {depth: [number(reach(i, depth)) for i in range(targets)] for depth in (1, 30, 1000)}
    seen = []
    for line in table.splitlines():
        words = [word for word in line.split() if not BAR.fullmatch(word)]
        if words and words[0] in ("1", "30", "1000"):
            assert set(words[1:]) <= set(whole[int(words[0])])
            seen += words[1:]
        elif words:
            assert words[0] in ("depth", "1e1")
    # What finds no room is not cut: it is left out, and that is told.
    assert len(seen) == 3 * targets or "more" in table


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("targets", [1, 2, 3, 4])
def test_the_scale_above_each_bar_is_whole(width: int, targets: int) -> None:
    text = render_sweep(swept(targets, (1, 10), lambda i, d: 1.0), Style(width))
    header = text.splitlines()[0]
    for start in re.finditer("1e-8", header):
        mark = header[start.end() :].split("…")[0].split()
        assert mark[0] == "1"
        assert len(mark) == 1 or mark[1] == "1e4"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("targets", [1, 2, 4, 8])
def test_the_plot_names_every_target(width: int, targets: int) -> None:
    text = render_sweep(swept(targets, (1, 10, 100), lambda i, d: 0.9**d), Style(width))
    assert all(len(line) <= width for line in text.splitlines())
    plot = text[: text.index("healthy up to")]
    for mark, target in zip("ox+*sd^v"[:targets], range(targets), strict=True):
        assert re.search(rf"{re.escape(mark)} [\w/…]*{target}\.yaml", plot)


def test_the_plot_has_each_point_in_its_place() -> None:
    """Depth 1 at the left end, the greatest at the right, 1 on the dotted line, all falling."""
    depths = (1, 10, 100, 1000)
    text = render_sweep(swept(1, depths, lambda i, d: 10.0 ** -math.log10(d)), Style(80))
    plot = [line for line in text.splitlines() if "│" in line]
    marks = [
        (column - line.index("│") - 1, height)
        for height, line in enumerate(plot)
        for column, character in enumerate(line)
        if character == "o"
    ]
    marks.sort()
    left, right = marks[0], marks[-1]
    assert len(marks) == 4
    assert left[0] == 0
    assert "·" in plot[left[1]]  # a reach of 1
    assert [height for _, height in marks] == sorted(height for _, height in marks)
    gaps = [b[0] - a[0] for a, b in pairwise(marks)]
    assert max(gaps) - min(gaps) <= 1  # decades are equally wide
    assert right[1] == len(plot) - 1
    assert plot[right[1]].split()[0] == "1e-3"


@pytest.mark.parametrize(
    ("reach", "story"),
    [
        (lambda d: 0.5**d, "exponential, ×0.500 per block"),
        (lambda d: 0.5 * d**-2.0, "polynomial, depth^-2.00"),
        (lambda d: 1.0, "flat"),
        (lambda d: NAN, "too few depths with a reach above 0"),
        (lambda d: 0.0, "too few depths with a reach above 0"),
        (lambda d: None, "too few depths with a reach above 0"),
    ],
)
def test_what_was_fitted_is_told(reach: Callable[[int], float | None], story: str) -> None:
    text = render_sweep(swept(1, (1, 2, 4, 8), lambda i, d: reach(d)), Style(80))
    assert text.splitlines()[-1].endswith(story)


@pytest.mark.parametrize("width", [80, 120])
def test_the_cells_of_a_heat_map_do_not_touch(width: int) -> None:
    columns = tuple(str(i) for i in range(1, 31))
    points = tuple(
        Point("plain", (d, w), int(d), 10.0 ** -(int(d) * 3.3), Verdict.VANISHING)
        for d in ("1", "4", "90")
        for w in columns
    )
    points = tuple(p._replace(reach=0.0) if p.depth == 90 else p for p in points)
    made = Sweep(("plain",), (("depth", ("1", "4", "90")), ("width", columns)), points)
    lines = render_sweep(made, Style(width)).splitlines()
    assert all(len(line) <= width for line in lines)
    fitted = len(lines[1].split())
    assert fitted >= 8
    for line, shown in zip(lines[2:5], ("-3.3", "-13.2", "-inf"), strict=True):
        assert line.split()[1:] == [shown] * fitted
    told = re.search(r"(\d+) columns more", lines[5])
    assert told is not None
    assert int(told[1]) == 30 - fitted


@pytest.mark.parametrize("width", [80, 120])
def test_ascii(width: int) -> None:
    for made in (
        swept(3, (1, 10, 1000), lambda i, d: 0.5**d),
        replace(
            swept(1, (1, 10), lambda i, d: 1.0),
            axes=(("depth", ("1", "10")), ("gain", ("1",))),
            points=tuple(
                Point("specs/network_number_0.yaml", (d, "1"), int(d), 1.0, Verdict.HEALTHY)
                for d in ("1", "10")
            ),
        ),
    ):
        text = render_sweep(made, Style(width, ascii=True))
        assert text.isascii()
        assert "\\u" not in text
        assert all(len(line) <= width for line in text.splitlines())


def test_a_sweep_in_memory_is_what_probe_spec_finds() -> None:
    axes = {"depth": ["2", "5"], "width": ["6"]}
    options = ProbeOptions(dtype="float64", batch_size=4)
    jobs, _ = sweeping.plan(["residual"], ABOUT, Axes(axes), options)
    points = list(sweeping.run(jobs, 1))
    for point in points:
        spec = load_spec("residual", StackOptions(depth=point.depth, width=6))
        report = probe_target(spec, options)
        assert (point.reach, point.verdict) == (report.reach, report.verdict)
