"""``gradprobe fix``: the smallest change that mends, and nothing where nothing is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.commands import Run
from helpers.model_specs import EXPECTED
from helpers.places import ROOT

from gradprobe.measure.measurement import Course, Outcome, Trial
from gradprobe.render.canvas import Style
from gradprobe.render.fix import render_fix, render_fix_json
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.yaml import parse as parse_bytes
from gradprobe.tasks.fix.search import mend
from gradprobe.tasks.fix.trials import (
    DEEP,
    LEFT_ALONE,
    MENDED,
    MOST_PLAIN,
    Fix,
    Probed,
    doubt,
    failing,
    needs_mending,
)
from gradprobe.tasks.fix.trials import Trial as Tried
from gradprobe.verdict.report import Verdict


def network(body: str, times: int = 20, width: int = 32, top: str = "") -> str:
    return (
        f"# {times} blocks\ninput: {{shape: [{width}]}}\n{top}layers:\n"
        f"  - Linear: {{out_features: {width}}}\n"
        f"  - repeat: {{times: {times}, layers: [{body}]}}\n"
        "  - Linear: {out_features: 10}\n"
    )


def fixed(text: str, *, seeds: tuple[int, ...] = (0, 1), everything: bool = False) -> Fix:
    spec = parse_bytes(text.encode(), "net.yaml")
    return mend(spec, text, ProbeOptions(), seeds, everything=everything)


LINEAR = "Linear: {out_features: 32}"
WIDE = "Linear: {out_features: 64}"  # learns one batch by heart in well under sixty steps
SMALL = "Linear: {out_features: 32, init: {weight: {normal: {std: 0.001}}, bias: zeros}}"
SIGMOID = f"{LINEAR}, Sigmoid"
BROKEN = network(SIGMOID)


DEEP_CASES = {"deep", "deep and normalised"}
# What mends each, by the closed forms in tests/measure/test_closed_forms.py and nothing bigger.
CASES = {
    # ReLU halves the variance; He init doubles it
    "relu": (network(f"{WIDE}, ReLU", width=64), "init kaiming_normal"),
    "leaky": (network(f"{WIDE}, LeakyReLU", width=64), "init kaiming_normal"),
    # 1/√3 per layer without an activation; xavier has 1
    "linear": (network(LINEAR), "init xavier_normal"),
    "selu": (network(f"{SMALL}, SELU", times=10), "init xavier_normal"),
    # a class-wide init too large: N(0, 1) at width 64 multiplies by √32 per ReLU layer
    "too large": (
        network(f"{WIDE}, ReLU", 16, width=64, top="init: {Linear: {weight: normal}}\n"),
        "init kaiming_normal",
    ),
    # no gain lets a sigmoid's inputs differ; a batch's own mean does
    "sigmoid": (BROKEN, "BatchNorm1d"),
    # the skip is there and passes on half
    "faint skip": (
        network(f"residual: {{skip_scale: 0.5, layers: [{SMALL}, Tanh]}}"),
        "skip_scale 1",
    ),
    # unnormalised residual blocks with He init: √2 each; a norm in front holds the branch
    "loud branches": (
        network(
            f"residual: [{LINEAR}, ReLU]", 40, top="init: {Linear: {weight: kaiming_normal}}\n"
        ),
        "BatchNorm1d",
    ),
    # a stack too deep for any init
    "deep": (network(f"{LINEAR}, Tanh", times=70), "skip"),
    # BatchNorm + ReLU: √(π/(π−1)) = 1.21 per layer, whatever the init
    "deep and normalised": (network(f"{LINEAR}, BatchNorm1d, ReLU", times=60), "skip"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, marks=pytest.mark.slow if case in {"leaky", "loud branches", *DEEP_CASES} else ()
        )
        for case in CASES
    ],
)
def test_the_smallest_change_that_mends(case: str) -> None:
    text, expected = CASES[case]
    fix = fixed(text)
    assert not fix.before.sound
    assert fix.after is not None
    assert fix.after.name == expected
    assert len(fix.after.measured) == len(fix.seeds)  # not a lucky draw
    assert [trial.sound for trial in fix.tried] == [False] * (len(fix.tried) - 1) + [True]
    # What is written is what was measured: the mended text needs no further mending.
    assert fixed(fix.text).before.sound


@pytest.mark.slow
def test_every_change_is_tried_on_request_and_the_smallest_still_chosen() -> None:
    few, every = fixed(BROKEN, seeds=(0,)), fixed(BROKEN, seeds=(0,), everything=True)
    assert every.after == few.after
    assert every.tried[: len(few.tried)] == few.tried
    assert len(every.tried) > len(few.tried)


@pytest.mark.slow
def test_what_does_not_learn_is_no_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    mended = fixed(BROKEN, seeds=(0,))
    assert mended.after
    assert mended.after.learned.endswith(" steps")
    stuck = Trial((Course("SGD", 0.1, (2.3, 2.3), Outcome.SLOW),), samples=16)
    monkeypatch.setattr("gradprobe.measure.overfit.overfit", lambda subject, seconds: stuck)
    tried = fixed(BROKEN, seeds=(0,))
    assert tried.status == "not-found"
    assert "does not learn one batch by heart" in {trial.doubt for trial in tried.tried}


HEALTHY = [
    "plain_relu_he",
    "residual_mlp",
    "residual_zero_init",
    "transformer_postnorm",
    "resnet18",
]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_network_is_left_alone(name: str) -> None:
    fix = fixed((ROOT / "model_specs" / f"{name}.yaml").read_text(encoding="utf-8"), seeds=(0,))
    assert fix.before.sound
    assert fix.status == "healthy"
    assert not fix.tried
    assert not fix.text


def test_no_healthy_labelled_network_that_trained_is_touched() -> None:
    """A sample; benchmarks/fix.py --untrained goes through all of them."""
    lines = (ROOT / "benchmarks" / "trainability" / "outcomes.jsonl").read_text().splitlines()
    outcomes = [json.loads(line) for line in lines]
    trained = [o for o in outcomes if o["best"] >= 0.9 and o["best_sgd"] >= 0.9]
    touched = [
        outcome["id"]
        for outcome in trained[::12]
        if (fix := fixed(json.dumps(outcome["spec"]), seeds=(0,))).before.worst.verdict
        is Verdict.HEALTHY
        and not fix.before.sound
    ]
    assert touched == []


def test_a_spec_that_says_to_ignore_the_finding_is_left_alone() -> None:
    check = "check: {ignore: [{rule: GP101, reason: it is the textbook example}]}\n"
    fix = fixed(BROKEN + check, seeds=(0,))
    assert fix.before.sound
    assert fix.before.worst.verdict is Verdict.VANISHING
    assert "says to ignore" in render_fix(fix)


# Activations that are zero everywhere: no gradient enters a branch, with a skip or without.
DEAD = network("Linear: {out_features: 1}, Threshold: {threshold: 1.0e9, value: 0}", 5, 1)


@pytest.mark.slow
def test_what_cannot_be_mended_is_left_untouched(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "dead.yaml"
    path.write_text(DEAD)
    result = run("fix", "--write", str(path))
    assert result.code == 1
    assert "mends it" in result.out
    assert "skip " in result.out  # it was tried
    assert "+++" not in result.out
    assert path.read_text() == DEAD


# ---- the bars


def measured(reach: float, dependence: float = 0.9, path: str = "plain", rows: int = 10) -> Probed:
    return Probed(Verdict.HEALTHY, reach, dependence, False, path, rows)


@pytest.mark.parametrize(
    ("one", "sound", "needed"),
    [
        (measured(1.0), True, False),
        (measured(11.0), False, False),  # grows without a skip: no fix, and no reason for one
        (measured(11.0, path="skip"), True, False),
        (measured(0.05), False, False),
        (measured(1.0, 0.05), False, False),
        (measured(1.0, 0.005), False, True),  # the inputs look alike
        (measured(1.0, 0.5, "deep", 40), False, True),
        (measured(1.0, 0.95, "deep", 40), True, False),
        (measured(1.0, 0.95, "deep", MOST_PLAIN + 1), False, False),
        (Probed(Verdict.WEAK, 1.0, 0.9, True, "plain", 3), False, True),
        (Probed(Verdict.WEAK, 1.0, 0.9, False, "plain", 3), False, False),
    ],
)
def test_what_is_sound_and_what_needs_mending(one: Probed, sound: bool, needed: bool) -> None:
    assert (not failing(one)) is sound
    assert bool(needs_mending(one)) is needed


def test_the_bars_of_a_fix_are_stricter_than_those_of_a_network_as_it_came() -> None:
    for path, bar in MENDED.items():
        loose = LEFT_ALONE[path]
        assert loose.low <= bar.low < 1 < bar.high <= loose.high
        assert loose.dependence < bar.dependence
        assert not doubt(measured(1.0, 1.0, path, 1), MENDED)


# ---- the command


def test_a_diff_and_exit_1_until_it_is_written(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(BROKEN)
    first = run("fix", str(path))
    assert first.code == 1
    assert f"--- {path}\n+++ {path}\n" in first.out
    assert path.read_text() == BROKEN
    assert run("fix", "--write", str(path)).code == 0
    assert path.read_text() == BROKEN.replace(", Sigmoid", ", BatchNorm1d, Sigmoid")
    again = run("fix", "--write", str(path))
    assert again.code == 0
    assert "healthy at seeds 0, 1 and 2" in again.out
    assert run("probe", str(path)).code == 0


def test_seeds_may_be_a_list(run: Run) -> None:
    ended = run("fix", "plain", "--depth", "2", "--width", "8", "--seeds", "3,7")
    assert "healthy at seeds 3 and 7" in ended.out


def test_the_next_step_can_be_pasted() -> None:
    measured = (Probed(Verdict.VANISHING, 1e-9, 0.5, True, "plain", 3),)
    fix = Fix("my net.yaml", (0,), Tried("as it is", measured, False), diff=("+x",), writable=True)
    assert "gradprobe fix --write 'my net.yaml'\n" in render_fix(fix)


@pytest.mark.skipif(not shutil.which("patch"), reason="patch is not installed")
def test_patch_takes_what_it_prints(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(BROKEN.rstrip("\n"))
    printed = run("fix", str(path)).out
    subprocess.run(["patch", str(path)], input=printed.encode(), check=True, capture_output=True)
    assert path.read_text() == BROKEN.rstrip("\n").replace(", Sigmoid", ", BatchNorm1d, Sigmoid")


HOSTILE = {
    "crlf": BROKEN.replace("\n", "\r\n").encode(),
    "no newline at the end": BROKEN.rstrip("\n").encode(),
    "byte-order mark": b"\xef\xbb\xbf" + BROKEN.encode(),
    "a tab in a comment": BROKEN.replace("# 20", "#\t20 \t").encode(),
    "unicode": BROKEN.replace("# 20", "# ∂L/∂x 漢字 😀 20").encode(),
    "one line": (
        b"{input: {shape: [32]}, layers: [Linear: {out_features: 32}, repeat: {times: 20, layers: "
        b"[Linear: {out_features: 32}, Sigmoid]}, Linear: {out_features: 10}]}"
    ),
    "ignores": BROKEN.encode() + b"check: {ignore: [{rule: GP401, reason: meant}]}  # a reason\n",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_write_keeps_every_other_byte(case: str, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(HOSTILE[case])
    assert run("fix", "--write", "--seeds", "1", str(path)).code == 0
    assert path.read_bytes() == HOSTILE[case].replace(b", Sigmoid", b", BatchNorm1d, Sigmoid")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_file_is_an_error(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(BROKEN)
    path.chmod(0o444)
    result = run("fix", "--write", "--seeds", "1", str(path))
    assert result.code == 2
    assert "cannot write" in result.err
    assert path.read_text() == BROKEN


def test_a_link_stays_a_link(tmp_path: Path, run: Run) -> None:
    path, link = tmp_path / "net.yaml", tmp_path / "link.yaml"
    path.write_text(BROKEN)
    link.symlink_to(path)
    assert run("fix", "--write", "--seeds", "1", str(link)).code == 0
    assert link.is_symlink()
    assert "BatchNorm1d" in path.read_text()


def test_a_file_that_changed_meanwhile_is_not_written(tmp_path: Path) -> None:
    from gradprobe.errors import InputError
    from gradprobe.tasks.fix.search import write

    path = tmp_path / "net.yaml"
    path.write_text(BROKEN)
    fix = fixed(BROKEN, seeds=(0,))
    path.write_text(BROKEN + "# a line more\n")
    with pytest.raises(InputError, match="changed while"):
        write(str(path), BROKEN, fix)
    assert path.read_text().endswith("# a line more\n")


@pytest.mark.parametrize("target", ["-", "plain"])
def test_only_a_file_can_be_written(target: str, run: Run) -> None:
    result = run("fix", "--write", target)
    assert result.code == 2
    assert "is no file" in result.err


@pytest.mark.slow
def test_a_stack_shows_the_diff_of_its_spec(run: Run) -> None:
    result = run("fix", "plain", "--depth", "20", "--activation", "relu", "--seeds", "1")
    assert result.code == 1
    assert "--- plain\n" in result.out
    assert "+init:" in result.out
    assert "--write" not in result.out


def test_a_malformed_spec_is_an_input_error(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("layers: [")
    assert run("fix", str(path)).code == 2


@pytest.mark.slow
def test_where_anchors_forbid_an_edit_the_change_is_told(tmp_path: Path, run: Run) -> None:
    text = (
        "input: {shape: [16]}\nlayers:\n  - Linear: {out_features: 16}\n"
        "  - repeat: {times: 60, layers: &body [Linear: {out_features: 16}, Tanh]}\n"
        "  - sequential: *body\n  - Linear: {out_features: 2}\n"
    )
    path = tmp_path / "net.yaml"
    path.write_text(text)
    result = run("fix", "--write", str(path))
    assert result.code == 1
    assert "By hand:\n  line 4: skip" in result.out
    assert path.read_text() == text


# ---- the documentation


def test_the_docs_show_every_unhealthy_network_of_model_specs() -> None:
    shown = (ROOT / "docs" / "fix.md").read_text(encoding="utf-8")
    unhealthy = [name for name, expected in EXPECTED.items() if expected.verdict != "healthy"]
    assert unhealthy
    assert [n for n in unhealthy if f"$ gradprobe fix model_specs/{n}\n" not in shown] == []


def test_the_docs_show_the_bars() -> None:
    shown = (ROOT / "docs" / "fix.md").read_text(encoding="utf-8")
    for path in LEFT_ALONE:
        loose, strict = LEFT_ALONE[path], MENDED[path]
        came, wanted = (f"{bar.low:g} to {bar.high:g}" for bar in (loose, strict))
        row = f"| {came} | {wanted} | {loose.dependence:g} | {strict.dependence:g} |"
        assert row in shown
    assert f"at most {DEEP} rows" in shown
    assert f"{DEEP + 1} to {MOST_PLAIN}" in shown


# ---- text and JSON


def test_json_says_everything_the_text_says(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(BROKEN)
    first, second = (run("fix", str(path), "--format", "json") for _ in range(2))
    assert first.out == second.out
    body = json.loads(first.out)
    assert body["status"] == "found"
    assert body["before"]["measured"][0]["verdict"] == "vanishing"
    assert body["after"]["name"] == "BatchNorm1d"
    assert body["after"] == body["tried"][-1]
    assert all(one["verdict"] == "healthy" for one in body["after"]["measured"])
    assert body["seeds"] == [0, 1, 2]
    assert any(line.startswith("+") and "BatchNorm1d" in line for line in body["diff"])


@pytest.mark.slow
@pytest.mark.parametrize("width", [60])
def test_the_text_fits_the_width_and_ascii(width: int) -> None:
    """All but the diff: its lines are the file's."""
    fix = fixed(BROKEN, seeds=(0,), everything=True)
    text = render_fix(fix, Style(width=width, ascii=True), everything=True)
    assert text.isascii()
    told = [line for line in text.splitlines() if line not in fix.diff]
    assert max(map(len, told)) <= width
    assert text.count("\n+") == 2
    assert all(trial.name.split(" ")[0] in text for trial in fix.tried)


def test_colour_is_added_and_nothing_else() -> None:
    fix = fixed(BROKEN, seeds=(0,))
    painted = render_fix(fix, Style(color=True))
    assert "\x1b[38;5;28m+" in painted
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == render_fix(fix, Style())


def test_output_goes_to_a_file(tmp_path: Path, run: Run) -> None:
    path, out = tmp_path / "net.yaml", tmp_path / "fix.txt"
    path.write_text(BROKEN)
    result = run("fix", str(path), "--seeds", "1", "-o", str(out))
    assert (result.code, result.out) == (1, "")
    assert "+++ " in out.read_text()


def test_numbers_that_are_not_finite_are_null() -> None:
    text = network(
        f"{LINEAR}, ReLU", times=16, top="init: {Linear: {weight: {normal: {std: 1.0e+20}}}}\n"
    )
    body = json.loads(render_fix_json(fixed(text, seeds=(0,)), {}))
    assert body["before"]["measured"][0]["verdict"] == "non-finite"
    assert body["before"]["measured"][0]["reach"] is None


@pytest.mark.parametrize("target", ["net:Deep", "config.json", "-"])
def test_only_a_spec_file_is_written_to(run: Run, tmp_path: Path, target: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    name = str(tmp_path / target) if target.endswith("json") else target
    ended = run("fix", name, "--write")
    assert (ended.code, ended.out) == (2, "")
    assert "is no file that could be changed" in ended.err


def test_a_python_model_is_mended_in_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def deep(layers=10):\n"
        "    rows = [nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()) for _ in range(layers)]\n"
        "    return nn.Sequential(nn.Linear(8, 8), *rows, nn.Linear(8, 4))\n"
    )
    code = ("--input", "shape=16,8", "--trusted-in-process", "--seeds", "1")
    ended = run("fix", f"{tmp_path}/net.py:deep", *code)
    assert ended.code == 1, ended.err
    assert "GELU, kaiming_normal init mends it at seed 0" in ended.out
    assert "\n          nn.init.kaiming_normal_(module.weight)\n" in ended.out
    assert run("fix", f"{tmp_path}/net.py:deep", *code, "--arg", "layers=1").code == 0
