"""What CONTRIBUTING.md says to touch is enough: each addition is made, in a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documents import ADDITIONS

import gradprobe

PACKAGE = Path(gradprobe.__file__).parent
TESTS = Path(__file__).resolve().parent

RULE = '''
def lonely(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A trunk of few rows.

    There is little to lose.
    """
    if profile.steps < 5:
        yield Clue(f"{profile.steps} steps", "add rows", value=float(profile.steps))


'''

WITH_RULE = """
from helpers.handmade import with_reach, judged
from gradprobe.cli.main import main
findings, verdict = judged(with_reach(1.0, steps=3))
print(verdict, [finding.name for finding in findings], [f.message for f in findings])
print(judged(with_reach(1.0, steps=9))[0])
main(["rules", "lonely"])
"""

WITH_SIGNAL = """
import json
from dataclasses import replace
from jsonschema import validate
from helpers.handmade import report, with_reach
from gradprobe.render.json import render_report
from gradprobe.render.schema import output_schema
from gradprobe.render import text
from gradprobe.verdict import calibration
from gradprobe.verdict.report import Training
from gradprobe.verdict.signals import signals
measured = signals(with_reach(1.0), 1.0, {})
weighed = Training(measured, calibration.probability(measured), 1.0)
shown = replace(report(with_reach(1.0)), training=weighed)
body = json.loads(render_report(shown))
validate(body, output_schema("report"))
print(body["training"]["signals"]["longing"], calibration.verdict(measured))
print("longs 2.00" in text.render_report(shown))
"""

SOURCE = """\
from gradprobe.errors import InputError
from gradprobe.spec.network import InputSpec, LayerSpec, NetworkSpec

DEPTHS = {"three": 3}


def matches(target: str) -> bool:
    return target.startswith("toy:")


def load(target: str) -> NetworkSpec:
    name = target.removeprefix("toy:")
    if name not in DEPTHS:
        raise InputError(f"there is no toy {name}")
    layers = (LayerSpec("Linear", {"out_features": 4}),) * DEPTHS[name]
    return NetworkSpec(InputSpec((4,)), layers, source=target)
"""

RUN = """
import json
from gradprobe.cli.main import main
def run(*words):
    try:
        main(words)
    except SystemExit as end:
        return end.code
def answer(*words):
    assert not run(*words, "--format", "json", "--output", "answer.json", "--seed", "0")
    return json.load(open("answer.json"))
"""

WITH_SOURCE = f"""{RUN}
probe = answer("probe", "toy:three")
print(probe["target"], [row["kind"] for row in probe["rows"]])
print([report["target"] for report in answer("compare", "toy:three", "plain")["reports"]])
print(run("probe", "toy:four"))
"""

# torch.nn gets the class here, as it does with a new release.
WITH_ACTIVATION = f"""
import torch
class Sine(torch.nn.Module):
    def forward(self, x):
        return torch.sin(x)
torch.nn.Sine = Sine
{RUN}
words = "--activation sine --init xavier_normal --width 400 --depth 5 --theory"
probe = answer("probe", "plain", *words.split())
print(probe["rows"][2]["kind"], probe["theory"]["about"], probe["theory"]["agrees"])
"""

WITH_OPTION = f"""{RUN}
import gradprobe
run("probe", "--help")
print(len(answer("probe", "plain", "--depth", "2")["rows"]))
print(len(answer("probe", "plain", "--depth", "2", "--fine")["rows"]))
run("probe", "plain", "--depth", "2", "--emit-spec", "-o", "net.yaml")
spec = gradprobe.load("net.yaml")
print(len(gradprobe.probe(spec).profile.rows), len(gradprobe.probe(spec, fine=True).profile.rows))
print(len(gradprobe.assert_healthy(spec, fine=True, ignore=["GP"]).profile.rows))
run("check", "net.yaml", "--fine", "--no-cache", "--output-format", "json", "-o", "fine.json")
print(len(json.load(open("fine.json"))["targets"][0]["report"]["rows"]))
open("gradprobe.toml", "w").write("fine = true")
run("check", "net.yaml", "--show-config")
"""

FORMAT = """\
from gradprobe.render.canvas import Style
from gradprobe.tasks.check.result import CheckResult


def render_loud(result: CheckResult, style: Style) -> str:
    return " ".join(outcome.path.upper() for outcome in result.outcomes) + chr(10)
"""

WITH_FORMAT = f"""{RUN}
run("probe", "plain", "--depth", "2", "--emit-spec", "-o", "net.yaml")
run("check", "net.yaml", "--no-cache", "--output-format", "loud")
run("check", "net.yaml", "--no-cache", "-o", "loud=loud.txt", "--exit-zero")
print(open("loud.txt").read() == "NET.YAML" + chr(10))
run("check", "--help")
"""


def changed(
    tmp_path: Path,
    what: str,
    edits: dict[str, list[tuple[str, str]]],
    program: str,
    added: dict[str, str] | None = None,
) -> list[str]:
    """What ``program`` prints beside a copy of the package with what CONTRIBUTING.md says to touch.

    ``edits`` replace a text by another, file by file; ``added`` are new files.
    """
    files, _ = ADDITIONS[what]
    assert sorted([*edits, *(added or {})]) == sorted(files)
    copy = tmp_path / "gradprobe"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in (added or {}).items():
        (copy / path).write_text(text, "utf-8")
    for path, replacements in edits.items():
        text = (copy / path).read_text("utf-8")
        for old, new in replacements:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (copy / path).write_text(text, "utf-8")
    paths = os.pathsep.join([str(tmp_path), str(TESTS)])
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_rule_is_one_file(tmp_path: Path) -> None:
    entry = '    Rule("GP404", "unseen"'
    added = f'    Rule("GP499", "lonely", Severity.WARNING, lonely),\n{entry}'
    edits = {"verdict/rules/notes.py": [("RULES = (", f"{RULE}RULES = ("), (entry, added)]}
    found, silent, head, *rest = changed(tmp_path, "a rule", edits, WITH_RULE)
    assert found == "healthy ['lonely'] ['3 steps']"
    assert silent == "()"
    assert head.startswith("GP499 lonely  warning")
    assert "There is little to lose." in "\n".join(rest)


def test_a_signal_is_three_files(tmp_path: Path) -> None:
    field = "    coherence: float  # of the gradient"
    cause = 'CAUSES = {\n    "longing": Cause(\n        lambda value: f"longs {number(value)}",\n'
    cause += '        lambda profile, signals: "it longs",\n'
    cause += '        lambda profile, signals: "be there",\n        verdict=Verdict.DEAD,\n    ),\n'
    edits = {
        "verdict/signals.py": [
            (field, f"    longing: float\n{field}"),
            ("    coherence=1.0,\n", "    coherence=1.0,\n    longing=2.0,\n"),
            (
                "        coherence=coherence,\n",
                "        coherence=coherence,\n        longing=5.0,\n",
            ),
        ],
        "verdict/calibration.py": [
            ("}\nCOEFFICIENTS_WITH", '    "longing": (-9.0, -9.0),\n}\nCOEFFICIENTS_WITH')
        ],
        "verdict/causes.py": [("CAUSES = {\n", cause)],
    }
    value, shown = changed(tmp_path, "a signal of the probability", edits, WITH_SIGNAL)
    assert value == "2.0 dead"
    assert shown == "True"


@pytest.mark.slow
def test_a_source_is_two_files(tmp_path: Path) -> None:
    entry = "SOURCES: tuple[Source, ...] = (\n"
    with_toy = f"{entry}    Source(toy.matches, lambda target, options: toy.load(target)),\n"
    imports = "from gradprobe.spec.sources import huggingface, named, python, stack, "
    edits = {"spec/sources/table.py": [(imports, f"{imports}toy, "), (entry, with_toy)]}
    added = {"spec/sources/toy.py": SOURCE}
    lines = changed(tmp_path, "a source of targets", edits, WITH_SOURCE, added)
    probed = "toy:three ['Linear', 'Linear', 'Linear']"
    assert lines == [probed, "['toy:three', 'plain']", "2"]


@pytest.mark.slow
def test_an_activation_is_two_files(tmp_path: Path) -> None:
    kind, function = '    "Tanh": LayerKind(', '    "Tanh": lambda a:'
    edits = {
        "spec/layers.py": [(kind, f'    "Sine": LayerKind("", _ELEMENTWISE),\n{kind}')],
        "theory/activations.py": [
            (function, f'    "Sine": lambda a: Activation(np.sin, np.cos),\n{function}')
        ],
    }
    [line] = changed(tmp_path, "an activation", edits, WITH_ACTIVATION)
    assert line == "Linear+Sine Sine, xavier_normal True"


@pytest.mark.slow
def test_an_option_is_two_files_and_in_check_three(tmp_path: Path) -> None:
    deep = '    deep: bool = option(False, Shown("Judge by the chance of training."))\n'
    keyword, passed = "    deep: bool\n", "deep=self.deep,"
    check = "    deep: bool = option(  # two more passes\n"
    fine = '    fine: bool = option(False, Shown("The leaves too."))\n'
    profile, key = (
        "subject, profile = _at_a_telling_draw(subject, options)\n",
        '    "deep": Reader.boolean,\n',
    )
    leaves = 'options = replace(options, level="leaves") if options.fine else options\n        '
    edits = {
        "spec/options.py": [
            (deep, f"{fine}{deep}"),
            (keyword, f"    fine: bool\n{keyword}"),
            (check, f"{fine}{check}"),
            (passed, f"{passed} fine=self.fine,"),
        ],
        "measure/take.py": [(profile, f"{leaves}{profile}")],
        "tasks/check/config.py": [(key, f'    "fine": Reader.boolean,\n{key}')],
    }
    lines = changed(tmp_path, "an option that reaches the measurement", edits, WITH_OPTION)
    [shown] = [line for line in lines if "--fine" in line]
    assert shown.endswith("The leaves too.")
    [config] = [line for line in lines if line.startswith("fine ")]
    assert config.split() == ["fine", "true", "gradprobe.toml:1"]
    rows, leaves, library, asserted, checked = (
        line for line in lines if line and set(line) <= set("0123456789 ")
    )
    assert int(leaves) > int(rows)
    assert library.split() == [rows, leaves]
    assert asserted == checked == leaves


@pytest.mark.slow
def test_a_format_is_two_files(tmp_path: Path) -> None:
    entry = '    "concise": render_concise,\n'
    text = "from gradprobe.render.check.text"
    imports = f"from gradprobe.render.check.loud import render_loud\n{text}"
    edits = {
        "render/check/formats.py": [(entry, f'{entry}    "loud": render_loud,\n'), (text, imports)]
    }
    printed, _, written, *shown = changed(
        tmp_path, "a format of the check", edits, WITH_FORMAT, {"render/check/loud.py": FORMAT}
    )
    assert (printed, written) == ("NET.YAML", "True")
    assert "concise, loud, full" in "\n".join(shown)
