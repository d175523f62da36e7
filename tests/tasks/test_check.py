"""``gradprobe check``: what is checked, what is said, what is configured, how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.check_specs import (
    GOOD,
    IGNORING,
    INVALID,
    MISFIT,
    VANISHING,
    WEAK,
    write,
)
from helpers.commands import Result, Run

from gradprobe.cli.gate import SeedOptions
from gradprobe.errors import InputError
from gradprobe.spec.network import ArchitectureSpec, CodeSpec
from gradprobe.spec.options import CheckOptions, JudgeOptions, Limits, ProbeOptions
from gradprobe.spec.sources import stack
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.tasks.check import baseline
from gradprobe.tasks.check.baseline import Baseline, Known
from gradprobe.tasks.check.cache import Cache, key_of
from gradprobe.tasks.check.discover import discover
from gradprobe.tasks.check.job import about
from gradprobe.verdict.calibration import COEFFICIENTS
from gradprobe.verdict.judge import judge
from gradprobe.worker.run import measure_target

pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture
def check(run: Run, folder: Path, shared_cache: Path) -> Run:
    def call(*arguments: str) -> Result:
        return run("check", "--cache-dir", str(shared_cache), *arguments)

    return call


def heads(result: Result) -> list[str]:
    """``path rule`` of each line but the summary."""
    lines = result.out.splitlines()[:-1]
    return [f"{line.split(':')[0]} {line.split(': ')[1].split()[0]}" for line in lines]


# ---- what is said


def test_a_line_a_finding_then_a_summary(check: Run, folder: Path) -> None:
    write(folder, a=GOOD, b=VANISHING)
    ended = check()
    first, last = ended.out.splitlines()
    assert first.startswith("b.yaml:3:5: GP101 vanishing: the gradient shrinks to ")
    assert last == "2 specs checked: 1 error"
    assert (ended.code, ended.err) == (1, "")


def test_all_passed(check: Run, folder: Path) -> None:
    write(folder, a=GOOD)
    ended = check("a.yaml")
    assert (ended.code, ended.out) == (0, "1 spec checked: all passed\n")


def test_full_shows_the_line_and_what_to_do(check: Run, folder: Path) -> None:
    write(folder, b=VANISHING)
    lines = check("--output-format", "full").out.splitlines()
    assert lines[0] == "b.yaml:3:5: GP101 vanishing, likely, row 0"
    assert lines[1] == "    3 |   - Linear: {out_features: 8}"
    assert lines[2] == " " * 12 + "^"
    assert any(line.startswith("  → Sigmoid's slope") for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("specs", "code"),
    [
        ([GOOD], 0),
        ([WEAK], 0),
        ([IGNORING], 0),
        ([VANISHING], 1),
        ([INVALID], 2),
        ([MISFIT], 2),
        ([GOOD, VANISHING], 1),
        ([VANISHING, INVALID, GOOD], 2),
    ],
)
def test_the_exit_code_is_the_highest(
    check: Run, folder: Path, specs: list[str], code: int
) -> None:
    write(folder, **{f"s{i}": text for i, text in enumerate(specs)})
    assert check().code == code


def test_a_broken_spec_is_a_finding_and_the_others_are_checked(check: Run, folder: Path) -> None:
    write(folder, a=INVALID, b=VANISHING, c=MISFIT)
    (folder / "d.yaml").write_bytes(b"layers: \xff")
    ended = check()
    assert ended.code == 2
    assert heads(ended) == ["a.yaml GP901", "b.yaml GP101", "c.yaml GP901", "d.yaml GP901"]
    story = "unknown layer 'Linaer' (did you mean 'Linear'?)"
    assert ended.out.startswith(f"a.yaml:2:10: GP901 invalid: {story}\n")
    full = check("--output-format", "full").out
    assert "    2 | layers: [Linaer: {out_features: 4}]\n                 ^\n" in full
    assert "  → did you mean 'Linear'?\n" in full


def test_an_unused_ignore_is_reported_where_it_stands(check: Run, folder: Path) -> None:
    write(folder, a=GOOD + "check:\n  ignore:\n    - {rule: GP101, reason: an old wound}\n")
    ended = check()
    assert ended.out.startswith("a.yaml:8:7: GP403 unused-ignore: GP101 is ignored here and not ")
    assert "an old wound" in ended.out
    assert ended.code == 0
    assert check("--fail-on", "warning").code == 1


def test_fail_on_and_exit_zero(check: Run, folder: Path) -> None:
    write(folder, a=WEAK)
    assert check("--fail-on", "warning").code == 1
    assert check("--fail-on", "warning", "--exit-zero").code == 0
    write(folder, b=INVALID)
    assert check("--exit-zero").code == 2  # what could not be checked is never green


# ---- what is checked


def test_directories_honour_gitignore_and_take_specs_alone(check: Run, folder: Path) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    for place in ("nets", "nets/old", "build", ".hidden", "node_modules", "nets/deep/er"):
        (folder / place).mkdir(parents=True)
        write(folder / place, net=VANISHING)
    (folder / "nets" / "deep" / "er" / "two.yml").write_text(VANISHING)
    (folder / "nets" / "compose.yaml").write_text("services: {db: {image: postgres}}\n")
    flow = {"input": {"shape": [8]}, "layers": ["Linaer"]}
    (folder / "nets" / "flow.yaml").write_text(json.dumps(flow))
    (folder / ".gitignore").write_text("build/\nold\n")
    (folder / "nets" / "deep" / ".gitignore").write_text("*.yml\n")
    expected = ["nets/deep/er/net.yaml GP101", "nets/flow.yaml GP901", "nets/net.yaml GP101"]
    assert heads(check()) == expected
    assert heads(check("nets")) == expected
    # Named outright, it is checked whatever a .gitignore says.
    assert heads(check("build/net.yaml")) == ["build/net.yaml GP101"]
    (folder / "nets" / "deep" / ".gitignore").write_text("!two.yml\n")
    assert "nets/deep/er/two.yml GP101" in heads(check())


def test_exclude_is_for_what_is_found_unless_forced(check: Run, folder: Path) -> None:
    (folder / "legacy").mkdir()
    write(folder / "legacy", a=VANISHING)
    write(folder, b=GOOD)
    (folder / "gradprobe.toml").write_text('exclude = ["legacy"]\n')
    assert check().out == "1 spec checked: all passed\n"
    assert heads(check("legacy/a.yaml")) == ["legacy/a.yaml GP101"]
    ended = check("--force-exclude", "legacy/a.yaml", "b.yaml")
    assert ended.out == "1 spec checked: all passed\n"
    assert check("--force-exclude", "legacy/a.yaml").code == 2  # nothing is left: never green
    assert check("--exclude", "b.yaml,legacy").code == 2


def test_globs_are_opened_and_each_file_is_checked_once(check: Run, folder: Path) -> None:
    (folder / "in").mkdir()
    write(folder / "in", a=VANISHING, b=GOOD)
    (folder / "link.yaml").symlink_to(folder / "in" / "a.yaml")
    ended = check("in/*.yaml", "in/a.yaml", "./in", str(folder / "in" / "a.yaml"), "link.yaml")
    assert heads(ended) == ["in/a.yaml GP101"]
    assert ended.out.endswith("2 specs checked: 1 error\n")
    assert check("**/b.yaml").code == 0


def test_the_order_is_that_of_the_paths_whatever_was_named_first(check: Run, folder: Path) -> None:
    write(folder, b=VANISHING, a=VANISHING, c=INVALID)
    assert check("c.yaml", "b.yaml", "a.yaml").out == check("a.yaml", "b.yaml", "c.yaml").out


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("no.yaml", "no such file or directory"),
        ("no/*.yaml", "the pattern matches nothing"),
        ("empty", "no spec below it that is not ignored or excluded"),
        ("", "the path is empty"),
    ],
)
def test_what_matches_nothing_is_never_green(check: Run, folder: Path, path: str, why: str) -> None:
    (folder / "empty").mkdir()
    write(folder, a=GOOD)
    for arguments in ([path], [path, "a.yaml"]):
        ended = check(*arguments)
        assert ended.code == 2
        assert f"GP901 invalid: {why}" in ended.out


def test_a_path_that_is_nearly_there_is_told(check: Run, folder: Path) -> None:
    (folder / "nets").mkdir()
    write(folder / "nets", small=GOOD)
    (folder / ".git").mkdir()
    (folder / "gone.yaml").symlink_to("nowhere.yaml")
    for path, near in (("net", "nets"), ("nets/smal.yaml", "nets/small.yaml")):
        assert f"  → did you mean '{near}'?\n" in check(path, "--output-format", "full").out
    for path in ("git", "gone.yaml", "nets/deeply.yaml"):  # hidden, itself, and only as far away
        assert "did you mean" not in check(path, "--output-format", "full").out


def test_nothing_below_the_working_directory_is_exit_2(check: Run) -> None:
    assert check().code == 2


@pytest.mark.slow
def test_standard_input_is_a_target(run_process: Run, folder: Path, shared_cache: Path) -> None:
    arguments = ("check", "-", "--cache-dir", str(shared_cache))
    ended = run_process(*arguments, stdin=VANISHING.encode())
    assert ended.out.startswith("-:3:5: GP101 vanishing")
    assert ended.code == 1
    assert run_process(*arguments, stdin=b"").code == 2
    assert run_process(*arguments, stdin=INVALID.encode()).out.startswith("-:2:10: GP901 invalid")


@pytest.mark.slow
def test_a_spec_that_names_code_runs_only_if_that_is_allowed(check: Run, folder: Path) -> None:
    (folder / "own.py").write_text(
        "import pathlib\nfrom torch import nn\npathlib.Path('ran').touch()\n"
        "def net(layers):\n    rows = [nn.Sequential(nn.Linear(8, 8), nn.Tanh())] * layers\n"
        "    return nn.Sequential(nn.Linear(8, 8), *rows, nn.Linear(8, 4))\n"
    )
    (folder / "own.yaml").write_text(
        "model:\n  target: own:net\n  args: {layers: 1}\n  inputs: {shape: [4, 8]}\n"
    )
    (folder / "compose.yaml").write_text("model:\n  image: x\n")  # another's
    ended = check()
    assert heads(ended) == ["own.yaml GP901"]
    assert "this spec runs code: own:net" in ended.out
    assert (ended.code, (folder / "ran").exists()) == (2, False)
    for _ in range(2):  # code changes by itself: nothing of it is kept
        ended = check("--allow-code")
        assert ended.out.splitlines()[-1] == "1 spec checked: all passed"
        (folder / "ran").unlink()
    (folder / "own.py").write_text("import os\nos._exit(0)\n")
    ended = check("--allow-code")
    assert (ended.code, heads(ended)) == (3, ["own.yaml GP902"])


@pytest.mark.parametrize(
    "lines",
    [
        "*\n!*/\n!*.yaml",
        "runs/**\n!runs/*.yaml",
        "runs/**\n!runs/**/*.yaml",
        "build/\n!runs/",
        "/runs\n!runs/keep.yaml",
        "runs/*\n!runs/keep.yaml",
        "**/runs\n!keep.yaml",
        "*.yaml\n!/runs/**",
        "# runs\n\\!x\nruns/build",
    ],
)
def test_gitignore_means_what_git_says(folder: Path, lines: str) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    for place in ("runs", "runs/build", "build", "other"):
        (folder / place).mkdir(exist_ok=True)
        write(folder / place, keep=GOOD, a=GOOD)
    (folder / ".gitignore").write_text(lines + "\n")
    listed = subprocess.run(
        ["git", "ls-files", "-o", "--exclude-standard"], stdout=-1, text=True, check=True
    )
    expected = sorted(name for name in listed.stdout.splitlines() if name.endswith(".yaml"))
    found = discover(["."], lambda place: CheckOptions())
    assert list(found.files) == expected


@pytest.mark.parametrize(
    "text",
    [
        "  input: {shape: [8]}\n  layers: [Tanh]\n",
        "# a comment\n{input: {shape: [8]}, layers: [Tanh]}\n",
        "---\n{input: {shape: [8]}, layers: [repeat: 3]}\n",
        '"input": 1\n"layers": [\n',
        "input: {shape: 3}\n? layers\n: - Linaer\n",
        "gradprobe: 1\nlyers: 3\n",
        "gradprobe: 2\nlayers: {}\n",
        "# yaml-language-server: $schema=../gradprobe.spec.schema.json\nlyers: 3\n",
        "model: {target: own:Net, args: {layers: 3}}\n",
        "input: {shape: [8]}\nlayers: [Tanh]\nchekc: {}\n",
    ],
)
def test_a_spec_in_another_dress_is_found(folder: Path, text: str) -> None:
    (folder / "a.yaml").write_text(text)
    (folder / "b.yaml").write_text("keras:\n  layers: 3\nmodel: {name: x}\n- broken")
    (folder / "c.yaml").write_text("- layers: 3\n")
    os.mkfifo(folder / "pipe.yaml")
    assert discover(["."], lambda place: CheckOptions()).files == ("a.yaml",)


def test_a_loop_of_links_is_walked_once(folder: Path) -> None:
    write(folder, a=GOOD)
    (folder / "x").symlink_to(folder)
    (folder / "y").symlink_to(folder)
    for path in (".", "**/*.yaml", "./**/a.yaml", str(folder / "**" / "*.yaml")):
        assert discover([path], lambda place: CheckOptions()).files == ("a.yaml",)


@pytest.mark.slow
def test_each_seed_is_held_to_the_baseline(check: Run, folder: Path) -> None:
    narrow = "Linear: {out_features: 3}, ReLU"
    head = "Linear: {out_features: 2}"
    spec = f"input: {{shape: [3]}}\nlayers: [repeat: {{times: 6, layers: [{narrow}]}}, {head}]\n"
    write(folder, a=spec)
    together = found(check("--seeds", "4", "--output-format", "json"))
    alone = [found(check("--seeds", f"{s},{s}", "--output-format", "json")) for s in range(4)]
    assert together == set.union(*alone) | {("GP105", None)}
    assert len(together) > max(map(len, alone))
    check("--seeds", "0,0", "--write-baseline", "known.json")
    assert check("--seeds", "4", "--baseline", "known.json").code == 1


def found(result: Result) -> set[tuple[str, str]]:
    diagnostics = json.loads(result.out)["targets"][0]["diagnostics"]
    return {(one["rule"], one["row"]) for one in diagnostics}


def test_what_was_not_asked_is_not_stale(check: Run, folder: Path) -> None:
    write(folder, a=VANISHING)
    check("--write-baseline", "known.json")
    before = (folder / "known.json").read_text()
    assert check("--baseline", "known.json", "--select", "GP4").code == 0
    assert check("--baseline", "known.json", "--select", "GP4", "--prune-baseline").code == 0
    assert (folder / "known.json").read_text() == before
    assert check("--write-baseline", "known.json", "--shard", "1/2").code == 2
    assert check("--select", "").code == 2


def test_a_cache_leaves_a_directory_that_was_there_as_it_was(run: Run, folder: Path) -> None:
    write(folder, a=GOOD)
    (folder / ".gitignore").write_text("build/\n")
    assert run("check", "--cache-dir", ".", "--seeds", "5,6").code == 0
    assert (folder / ".gitignore").read_text() == "build/\n"
    assert len(entries(folder)) == 2  # one of each seed


def test_patterns_on_the_command_line_are_relative_to_where_it_is_called(
    check: Run, folder: Path
) -> None:
    (folder / "in").mkdir()
    write(folder / "in", a=VANISHING)
    write(folder, b=GOOD)
    for pattern in ("in/a.yaml", "/in/a.yaml", "in/", "a.yaml"):
        assert check("--exclude", pattern).code == 0


# ---- configuration


def test_the_nearest_configuration_counts_alone(check: Run, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.gradprobe]\nselect = ['GP4']\n[tool.other]\n")
    (folder / "inner" / "deeper").mkdir(parents=True)
    (folder / "inner" / "pyproject.toml").write_text("[tool.ruff]\n")  # does not speak of us
    (folder / "inner" / "deeper" / "gradprobe.toml").write_text("fail-on = 'warning'\n")
    write(folder / "inner", a=VANISHING)
    write(folder / "inner" / "deeper", b=VANISHING)
    ended = check()
    assert heads(ended) == ["inner/deeper/b.yaml GP101"]
    assert ended.code == 1
    assert len(heads(check("--isolated"))) == 2
    assert heads(check("--config", "pyproject.toml")) == []
    assert heads(check("--config", "inner/deeper/gradprobe.toml", "inner/a.yaml")) != []
    assert check("--config", "pyproject.toml", "--isolated").code == 2
    assert check("--config", "none.toml").code == 2


def test_gradprobe_toml_comes_before_pyproject_toml(check: Run, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.gradprobe]\nselect = ['GP4']\n")
    (folder / "gradprobe.toml").write_text("select = ['GP1']\n")
    write(folder, a=VANISHING)
    assert heads(check()) == ["a.yaml GP101"]


def test_options_stand_above_the_file(check: Run, folder: Path) -> None:
    (folder / "gradprobe.toml").write_text("select = ['GP4']\nfail-on = 'info'\n")
    write(folder, a=VANISHING)
    assert check().code == 0
    assert check("--select", "GP1").code == 1
    assert check("--select", "GP1,GP2", "--select", "GP4", "--ignore", "vanishing").code == 0
    assert check("--select", "GP8").code == 2


def test_thresholds_of_the_file_and_of_the_spec(check: Run, folder: Path) -> None:
    (folder / "gradprobe.toml").write_text("[thresholds]\nvanishing = 1e-30\nweak_low = 1e-29\n")
    write(folder, a=VANISHING, b=VANISHING + "check: {thresholds: {weak_low: 1.0e-3}}\n")
    assert heads(check()) == ["b.yaml GP103"]


def test_per_file_ignores_carry_a_reason(check: Run, folder: Path) -> None:
    (folder / "legacy").mkdir()
    write(folder / "legacy", a=VANISHING)
    write(folder, b=VANISHING)
    config = folder / "gradprobe.toml"
    config.write_text('[per-file-ignores]\n"legacy/*" = [{rule = "GP1", reason = "to be cut"}]\n')
    ended = check()
    assert heads(ended) == ["b.yaml GP101"]
    assert ended.out.endswith("2 specs checked: 1 error; 1 ignored\n")
    body = json.loads(check("--output-format", "json").out)
    assert body["targets"][1]["diagnostics"][0]["ignored"] == "to be cut"
    config.write_text('per-file-ignores = {"b.yaml" = ["vanishing"]}\n')
    assert heads(check()) == ["legacy/a.yaml GP101"]


def test_the_seed_that_fails_is_the_one_that_counts(check: Run, folder: Path) -> None:
    write(folder, a=GOOD)
    one = json.loads(check("--output-format", "json").out)["targets"][0]["report"]
    two = json.loads(check("--output-format", "json", "--seeds", "7").out)["targets"][0]["report"]
    assert (one["config"]["seed"], two["config"]["seed"]) == (0, 0)  # --seeds 7 is seven of them
    only = json.loads(check("--output-format", "json", "--seeds", "5,6").out)
    assert only["targets"][0]["report"]["config"]["seed"] == 5
    assert check("--seeds", "x").code == check("--seeds", "0").code == 2


def test_show_config_says_where_each_value_comes_from(check: Run, folder: Path) -> None:
    (folder / "pyproject.toml").write_text(
        "[project]\nname = 'x'\n\n[tool.gradprobe]\nfail-on = 'warning'\n"
        "thresholds = {vanishing = 1e-5}\nper-file-ignores = {'old/*' = ['GP1']}\n"
    )
    ended = check("--show-config", "--seeds", "2")
    lines = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines()}
    assert lines["fail-on"] == ['"warning"', "pyproject.toml:5"]
    assert lines["thresholds.vanishing"] == ["1e-05", "pyproject.toml:6"]
    assert lines["seeds"][-1] == "--seeds"
    assert lines["ignore"] == ["[]", "default"]
    assert lines['per-file-ignores."old/*"'][-1] == "pyproject.toml:7"
    assert ended.code == 0


# ---- baseline


def test_known_findings_pass_new_ones_fail_and_mended_ones_must_go(
    check: Run, folder: Path
) -> None:
    write(folder, a=VANISHING, b=GOOD)
    assert check("--write-baseline", "known.json").code == 0
    ended = check("--baseline", "known.json")
    assert (ended.code, heads(ended)) == (0, [])
    assert ended.out.endswith("2 specs checked: all passed; 1 in the baseline\n")
    write(folder, a=f"# a line\n\n{VANISHING}", c=VANISHING)  # lines may move
    ended = check("--baseline", "known.json")
    assert (ended.code, heads(ended)) == (1, ["c.yaml GP101"])
    (folder / "c.yaml").unlink()
    write(folder, a=GOOD)
    ended = check("--baseline", "known.json")
    assert (ended.code, heads(ended)) == (1, ["a.yaml GP502"])
    assert check("--baseline", "known.json", "--prune-baseline").code == 0
    assert check("--baseline", "known.json").code == 0
    write(folder, a=VANISHING)
    # Pruned, it stands as new: and its reach is held to the one that was better.
    assert heads(check("--baseline", "known.json")) == ["a.yaml GP101", "a.yaml GP501"]


def test_a_baseline_names_files_from_where_it_stands(
    check: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "in").mkdir()
    write(folder / "in", a=VANISHING)
    assert check("--write-baseline", "in/known.json").code == 0
    assert list(json.loads((folder / "in/known.json").read_text())["targets"]) == ["a.yaml"]
    monkeypatch.chdir(folder / "in")
    assert check("--baseline", "known.json").code == 0


def test_a_known_target_that_is_gone_must_be_pruned(check: Run, folder: Path) -> None:
    write(folder, a=VANISHING, b=GOOD)
    check("--write-baseline", "known.json")
    (folder / "a.yaml").unlink()
    ended = check("--baseline", "known.json")
    assert ended.code == 1
    assert "known.json:1:1: GP502 stale-baseline: the baseline knows a.yaml" in ended.out
    assert check("--baseline", "known.json", "--prune-baseline").code == 0
    # A part of the list says nothing of what it does not hold.
    write(folder, c=GOOD)
    check("--write-baseline", "known.json")
    assert check("c.yaml", "--baseline", "known.json").code == 0


@pytest.mark.parametrize("reach", [0.0, 5e-324, 1.7e308, None])
def test_whatever_reach_a_network_has_its_baseline_is_read(
    tmp_path: Path, reach: float | None
) -> None:
    known = Baseline(str(tmp_path), {"net.yaml": Known(reach, ("GP201 1.3",))})
    (tmp_path / "known.json").write_text(baseline.dump(known))
    assert baseline.load(str(tmp_path / "known.json")) == known


def test_a_model_of_a_library_is_not_gone_and_a_configuration_is_where_its_folder_is(
    folder: Path,
) -> None:
    (folder / "nets" / "bert").mkdir(parents=True)
    there = ("hf:nets/bert", "timm:vit-tiny_100.a1", "timm:vit-tiny(depth=3)", "toy:a b/c")
    known = dict.fromkeys((*there, "hf:nets/gone", "plain", "sub/m.py:Net"), Known())
    [gone] = baseline.gone(Baseline(str(folder), known), "known.json")
    assert "knows hf:nets/gone, which is gone" in gone.message


def test_a_reach_that_got_worse_is_a_regression_inside_the_healthy_band(
    check: Run, folder: Path
) -> None:
    def spec(times: int) -> str:
        return VANISHING.replace("20", str(times)).replace("Sigmoid", "Tanh")

    write(folder, a=spec(1))
    check("--write-baseline", "known.json")
    write(folder, a=spec(4))
    ended = check("--baseline", "known.json", "--isolated")
    assert ended.code == 1
    assert heads(ended) == ["a.yaml GP501"]
    assert check("--baseline", "known.json", "--regression", "1000").code == 0
    (folder / "gradprobe.toml").write_text("regression = 1000\n")
    assert check("--baseline", "known.json").code == 0
    (folder / "gradprobe.toml").write_text("ignore = ['regression']\n")
    assert check("--baseline", "known.json").code == 0
    assert check("--write-baseline", "known.json", "--isolated").code == 0
    assert check("--baseline", "known.json", "--isolated").code == 0


@pytest.mark.parametrize(("times", "side"), [(5.0, 1), (5.0, -1), (1e6, 1)])
def test_a_regression_is_told_as_the_factor_by_which_the_reach_left_one(
    check: Run, folder: Path, times: float, side: int
) -> None:
    """A reach of 0.01 is 5 times further from 1 than 0.05 is, and than 20 = 1 / 0.05 is."""
    write(folder, a=VANISHING)
    check("--write-baseline", "known.json", "--isolated")
    body = json.loads((folder / "known.json").read_text())
    reach = body["targets"]["a.yaml"]["reach"]
    before = (reach * times) ** side
    assert reach * times < 1
    body["targets"]["a.yaml"]["reach"] = before
    (folder / "known.json").write_text(json.dumps(body))
    words = ("--baseline", "known.json", "--isolated", "--regression")
    ended = check(*words, repr(times * 0.99))
    assert ended.code == 1
    told = re.search(r"was (\S+) and is (\S+): (\S+) times further from 1", ended.out)
    assert told
    assert [float(number) for number in told.groups()] == pytest.approx(
        [before, reach, times], rel=0.01
    )
    assert check(*words, repr(times * 1.01)).code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema_version": 2, "targets": {}}', "schema_version 2"),
        ('{"targets": {}}', "not a baseline"),
        ("[]", "not a baseline"),
        ("{", "not JSON"),
        ('{"schema_version": 1, "targets": {"a.yaml": 3}}', "a.yaml"),
        ('{"schema_version": 1, "targets": {"a.yaml": {"reach": "x", "findings": []}}}', "a.yaml"),
        ('{"schema_version": 1, "targets": {"a.yaml": {"reach": 1, "findings": [1]}}}', "a.yaml"),
        ('{"schema_version": 1, "targets": {"a.yaml": {"reach": -1, "findings": []}}}', "a.yaml"),
        ('{"schema_version": 1, "targets": {"a.yaml": {"reach": true, "findings": []}}}', "a"),
        ('{"schema_version": 1, "targets": {"a.yaml": {"reach": 1e999, "findings": []}}}', "a"),
    ],
)
def test_a_baseline_of_another_kind_is_exit_2(
    check: Run, folder: Path, text: str, words: str
) -> None:
    write(folder, a=GOOD)
    (folder / "known.json").write_text(text)
    ended = check("--baseline", "known.json")
    assert ended.code == 2
    assert words in ended.err
    assert ended.out == ""


def test_baseline_options_that_contradict_each_other(check: Run, folder: Path) -> None:
    write(folder, a=GOOD)
    assert check("--prune-baseline").code == 2
    assert check("--baseline", "none.json").code == 2
    assert check("--baseline", "x.json", "--write-baseline", "x.json").code == 2


# ---- output


def test_one_run_writes_several_formats(check: Run, folder: Path) -> None:
    write(folder, a=VANISHING)
    ended = check("-o", "sarif=out.sarif", "-o", "markdown=sum.md", "-o", "junit=a=b.xml")
    assert ended.out.startswith("a.yaml:3:5: GP101")
    assert json.loads((folder / "out.sarif").read_text())["version"] == "2.1.0"
    assert (folder / "sum.md").read_text().startswith("### gradprobe: 1 spec checked: 1 error")
    assert (folder / "a=b.xml").read_text().startswith("<?xml")
    assert ended.code == 1


def test_a_plain_file_takes_the_place_of_standard_output(check: Run, folder: Path) -> None:
    write(folder, a=GOOD)
    ended = check("-o", "out.txt")
    assert (ended.out, (folder / "out.txt").read_text()) == ("", "1 spec checked: all passed\n")
    assert check("--output-format", "json", "-o", "out.json").out == ""
    assert json.loads((folder / "out.json").read_text())["exit_code"] == 0


@pytest.mark.parametrize("output", ["sarf=x", "a=1.txt", "no/where.txt"])
def test_an_output_that_cannot_be_is_exit_2(check: Run, folder: Path, output: str) -> None:
    write(folder, a=GOOD)
    ended = check("-o", output, "-o", "json=kept.json", "-o", "x")
    if output == "a=1.txt":  # no format is near: it is the name of a file
        assert ended.code == 0
        return
    assert ended.code == 2
    assert ended.err.startswith("gradprobe: error: ")
    if output == "no/where.txt":  # the others are written all the same
        assert json.loads((folder / "kept.json").read_text())["exit_code"] == 0


def test_in_github_actions_annotations_and_summary_come_by_themselves(
    check: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, a=VANISHING)
    summary = folder / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    ended = check()
    assert "::error file=a.yaml,line=3,col=5,title=gradprobe GP101 vanishing::the" in ended.out
    assert summary.read_text().startswith("before\n### gradprobe: 1 spec checked: 1 error")
    ended = check("--output-format", "json")  # what a program reads stays clean
    assert json.loads(ended.out)["exit_code"] == 1
    assert ended.err.startswith("::error ")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder))
    ended = check()
    assert ended.code == 1
    assert "warning: cannot write the step summary" in ended.err


# ---- cache, workers, shards


def test_two_runs_of_one_number_make_one_secret_and_leave_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two containers with one home both may be process 1."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "getpid", lambda: 1)
    link, others = os.link, []

    def slow(new: str, path: Path) -> None:
        if not others:
            others.append("")
            others[0] = Cache(tmp_path).secret.decode()
        link(new, path)

    monkeypatch.setattr(os, "link", slow)
    assert Cache(tmp_path).secret.decode() == others[0]
    assert os.listdir(tmp_path / "gradprobe") == ["secret"]
    assert (tmp_path / "gradprobe" / "secret").stat().st_mode & 0o777 == 0o600


def test_a_new_threshold_needs_no_new_run(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, a=VANISHING)
    assert run("check").code == 1
    cache = folder / ".gradprobe_cache"
    assert (cache / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886")
    assert (cache / ".gitignore").read_text() == "*\n"
    before = sorted(cache.rglob("*"))
    (folder / "gradprobe.toml").write_text("thresholds = {vanishing = 1e-30, weak_low = 1e-29}\n")
    monkeypatch.setattr("gradprobe.worker.pool._start", None)  # a worker would be an error
    assert run("check").code == 0
    assert sorted(cache.rglob("*")) == before


def test_a_file_with_another_name_is_not_measured_again(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = GOOD + "check:\n  ignore:\n    - {rule: GP101, reason: an old wound}\n"
    write(folder, a=unused)
    before = run("check").out
    (folder / "nets").mkdir()
    (folder / "a.yaml").rename(folder / "nets" / "b.yaml")
    monkeypatch.setattr("gradprobe.worker.pool._start", None)  # a worker would be an error
    assert run("check").out == before.replace("a.yaml", "nets/b.yaml")


def test_what_is_wrong_with_a_spec_is_kept_and_nothing_of_code(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "model: {target: own:net, inputs: {shape: [4, 8]}}\n"
    write(folder, a=MISFIT, own=model, neither=model + "layers: [ReLU]\n")
    before = run("check").out
    assert len(entries(folder)) == 1
    (folder / "own.yaml").unlink()
    (folder / "neither.yaml").unlink()
    (folder / "a.yaml").rename(folder / "b.yaml")
    monkeypatch.setattr("gradprobe.worker.pool._start", None)  # a worker would be an error
    again = run("check")
    assert again.code == 2
    assert again.out.splitlines()[0] == before.splitlines()[0].replace("a.yaml", "b.yaml")


def test_a_damaged_entry_is_measured_anew(run: Run, folder: Path) -> None:
    write(folder, a=VANISHING)
    first = run("check")
    [entry] = entries(folder)
    good = entry.read_bytes()
    entry.write_bytes(good.replace(b"Sigmoid", b"Sigmoie"))
    again = run("check")
    assert again.out == first.out
    assert "warning: the cache's entry for a.yaml is damaged" in again.err
    assert entry.read_bytes() == good


def entries(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if len(p.name) == 62]


OTHERS = {
    "seed": 1,
    "lr": 0.5,
    "batch_size": 8,
    "dtype": "float64",
    "loss": "mse",
    "level": "leaves",
    "by": "position",
    "overfit": "always",
    "overfit_time": 1.0,
    "limits": Limits(memory=1),
}


@pytest.mark.parametrize("field", ProbeOptions.__dataclass_fields__)
def test_an_option_that_changes_the_numbers_is_another_entry(folder: Path, field: str) -> None:
    (folder / "other").write_text("data")
    usual = ProbeOptions()
    if field == "boundaries":
        usual = replace(usual, stream=True)
    other = replace(usual, **{field: OTHERS.get(field, "other")})
    assert key_of(b"x", other, "1") != key_of(b"x", usual, "1")


def test_other_data_are_another_entry(folder: Path) -> None:
    options, keys = ProbeOptions(data="x.npy"), set()
    for text in ("one", "two"):
        (folder / "x.npy").write_text(text)
        keys.add(key_of(b"x", options, "1"))
    assert len(keys) == 2


def test_seeds_begin_at_a_first_one() -> None:
    assert SeedOptions().overrides == {}
    assert SeedOptions(seed=5).overrides == {"seeds": (5,)}
    assert SeedOptions(seeds="2", seed=5).overrides == {"seeds": (5, 6)}
    with pytest.raises(InputError, match="contradict each other"):
        _ = SeedOptions(seeds="1,2", seed=5).overrides


def test_a_target_gets_the_options_that_are_about_it() -> None:
    options = ProbeOptions(batch_size=4, rows="*", data="x.npy", loss="net:loss")
    spec = stack.load("plain", StackOptions())
    assert about(spec, options) == replace(options, rows=None, loss=None)
    assert about(CodeSpec("net:Net"), options) == replace(options, batch_size=None)
    assert about(CodeSpec("timm:x", library="timm"), options) == options
    config = ArchitectureSpec({}, "GPT2Model")
    assert about(config, options) == replace(options, data=None, loss=None)
    own = ProbeOptions(loss="own")
    assert (about(spec, own).loss, about(config, own).loss) == (None, "own")


def test_another_calibration_weighs_what_was_kept_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept measurement has no probability in it: that is made of it when it is judged."""
    spec = stack.load("plain", StackOptions(depth=3, width=8))
    measurement = measure_target(spec, ProbeOptions(deep=True))
    before = judge(measurement, "plain", JudgeOptions()).training
    # The entry is replaced in its place: one taken out and put back would stand last ever after.
    monkeypatch.setitem(COEFFICIENTS, "intercept", (0.0, 0.0))
    after = judge(measurement, "plain", JudgeOptions()).training
    assert before
    assert after
    assert before.signals == after.signals
    assert before.probability != after.probability


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 8),
        ("deep", False),
        ("loss", "mse"),
        ("data", "x.npy"),
        ("rows", "*"),
        ("max_memory", 1),
        ("max_parameters", 1),
    ],
)
def test_what_a_check_is_told_reaches_the_probe(field: str, value: object) -> None:
    told = replace(CheckOptions(), **{field: value})
    assert told.probe(0) != CheckOptions().probe(0) != CheckOptions().probe(1)


def test_without_a_cache_nothing_is_written(run: Run, folder: Path) -> None:
    write(folder, a=GOOD)
    assert run("check", "--no-cache").code == 0
    assert os.listdir(folder) == ["a.yaml"]


def test_a_cache_that_cannot_be_written_is_said_and_does_without(run: Run, folder: Path) -> None:
    write(folder, a=GOOD, b=VANISHING)
    (folder / "file").write_text("")
    ended = run("check", "--cache-dir", "file/cache")
    assert ended.code == 1
    assert ended.err.count("warning: no cache: cannot write") == 1


def test_shards_together_hold_what_one_run_holds(check: Run, folder: Path) -> None:
    write(folder, **{f"s{i}": [GOOD, VANISHING, WEAK][i % 3] for i in range(8)})
    whole = json.loads(check("gone.yaml", ".", "--output-format", "json").out)["targets"]
    parts = [
        json.loads(check("gone.yaml", ".", "--output-format", "json", "--shard", f"{k}/3").out)
        for k in (1, 2, 3)
    ]
    together = [target for part in parts for target in part["targets"]]
    assert sorted(together, key=lambda t: t["path"]) == whole
    assert "gone.yaml" in [target["path"] for target in parts[0]["targets"]]
    assert all(len(part["targets"]) >= 2 for part in parts)
    empty = check("s0.yaml", "--shard", "2/2")
    assert (empty.code, empty.out) == (0, "0 specs checked: none in this shard\n")
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        assert check("--shard", wrong).code == 2


FOREIGN = {
    "hydra": "model:\n  _target_: net.Net\n  layers: 3\n",
    "diffusion": "model:\n  target: ldm.models.Diffusion\n  params: {layers: 3}\n",
    "keras": "input: {width: 224}\nlayers: [64, 128]\n",
    "mlp": "input: {shape: [784]}\nlayers: [64, 128]\n",
    "trainer": "input: {shape: [8]}\nlayers: [Linear: {out_features: 4}]\noptimizer: adam\n",
    "other": "input: {shape: [8]}\nlayers: [{kind: conv, filters: 3}]\n",
    "compose": "model: {image: x}\nservices: {gradprobe: 1}\n",
    "pins": "gradprobe: {version: 1}\ntorch: {version: 2}\n",
    "tags": "model: !new:net.Net\n  layers: 3\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_somebody_elses_is_left_alone(folder: Path, name: str) -> None:
    write(folder, **{name: FOREIGN[name]})
    discovery = discover(["."], lambda place: CheckOptions())
    assert (discovery.files, discovery.skipped) == ((), (f"{name}.yaml",))
    assert discovery.missing[0].hint.startswith("1 YAML file is no spec: -v names")
    assert discover([f"{name}.yaml"], lambda place: CheckOptions()).files == (f"{name}.yaml",)


def test_foreign_files_beside_a_spec_fail_nothing(check: Run, folder: Path) -> None:
    write(folder, net=GOOD, **FOREIGN)
    ended = check("-v")
    assert (ended.code, ended.out) == (0, "1 spec checked: all passed\n")
    assert sorted(ended.err.splitlines()) == [
        f"gradprobe: skipped {name}.yaml: no spec of gradprobe's" for name in sorted(FOREIGN)
    ]
    assert check().err == ""
    assert check("-q").out == ""
    assert check("hydra.yaml").code == 2


def test_a_name_or_the_configuration_says_what_is_a_spec(folder: Path) -> None:
    (folder / "in").mkdir()
    for name in ("a.gradprobe.yaml", "in/b.yaml", "c.yaml", "in/d.net"):
        (folder / name).write_text("lyers: 3\n")
    options = replace(CheckOptions(), include=("in/",))
    assert discover(["."], lambda place: options).files == (
        "a.gradprobe.yaml",
        "in/b.yaml",
        "in/d.net",
    )
