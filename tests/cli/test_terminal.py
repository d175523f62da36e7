"""What a terminal, a pipe, a full disk and an impatient user do to a run."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from helpers.commands import Run
from helpers.places import ROOT
from helpers.processes import broken_pipe, limit_file_size

from gradprobe.cli.output import progress

GOOD = "input: {shape: [6]}\nlayers: [Linear: {out_features: 4}]\n"
COMMAND = [sys.executable, "-m", "gradprobe"]
HEALTHY = ("probe", "residual", "--depth", "6", "--width", "8")
VANISHING = ("probe", "plain", "--depth", "40", "--width", "8", "--activation", "sigmoid")
COMPARISON = ("compare", "plain", "residual", "--depth", "30", "--width", "8")


def run_with(arguments: tuple[str, ...], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*COMMAND, *arguments], text=True, timeout=60, check=False, **options
    )


def test_what_is_going_on_is_said_without_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("probing a\x1b]0;owned\x07.yaml"):
        pass
    assert "\x1b]0" not in stream.getvalue()
    assert r"a\x1b]0;owned\x07.yaml" in stream.getvalue()


# ---- the disk is full, or cannot be written to


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "report.txt"
    path.write_text("the old report\n")
    return path


@pytest.mark.parametrize(
    "arguments",
    [("schema",), (*HEALTHY, "--emit-spec")],
    ids=["schema", "emit-spec"],
)
def test_a_full_disk_leaves_the_old_file(old: Path, arguments: tuple[str, ...]) -> None:
    before = sorted(old.parent.iterdir())
    done = run_with((*arguments, "-o", str(old)), capture_output=True, preexec_fn=limit_file_size)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("gradprobe: error: cannot write ")
    assert str(old) in done.stderr
    assert "Traceback" not in done.stderr
    assert old.read_text() == "the old report\n"
    assert sorted(old.parent.iterdir()) == before  # nothing half-written lies about


@pytest.mark.parametrize(
    "target",
    ["", "nowhere/report.txt", "report.txt/inside", "folder", "/dev/full", "x" * 300],
    ids=["empty", "missing-directory", "file-for-directory", "directory", "full", "long-name"],
)
@pytest.mark.parametrize("arguments", [("schema",), (*HEALTHY, "--format", "json")])
def test_a_place_that_cannot_be_written(
    run: Run, old: Path, monkeypatch: pytest.MonkeyPatch, target: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(old.parent)
    Path("folder").mkdir()
    result = run(*arguments, "-o", target)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("gradprobe: error: ")
    assert target[:40] in result.err
    assert sorted(path.name for path in old.parent.iterdir()) == ["folder", "report.txt"]
    assert old.read_text() == "the old report\n"


def test_the_new_file_keeps_the_mode_of_the_old(run: Run, old: Path) -> None:
    old.chmod(0o640)
    assert run("schema", "-o", str(old)).code == 0
    assert old.stat().st_mode & 0o777 == 0o640
    json.loads(old.read_text())


def test_a_long_file_name_that_the_system_allows(run: Run, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    assert run("schema", "-o", str(path)).code == 0
    json.loads(path.read_text())


def test_an_output_that_is_a_device(run: Run) -> None:
    assert run("schema", "-o", "/dev/null").code == 0


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("schema",)],
    ids=lambda value: value[0],
)
def test_standard_output_is_full(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = run_with(arguments, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "gradprobe: error: cannot write: No space left on device\n"


def test_standard_error_is_full() -> None:
    """Nothing can be said then; the exit code still says it."""
    with open("/dev/full", "w") as full:
        for arguments in (("probe", "nothing.yaml"), ("probe",)):
            assert run_with(arguments, stdout=subprocess.PIPE, stderr=full).returncode == 2


# ---- the reader has gone, or was never there


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 0),
        (("schema",), 0),
        (("rules",), 0),
        pytest.param((*VANISHING, "--format", "json"), 1, marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(value[:2] + value[-1:]) if isinstance(value, tuple) else "",
)
def test_nobody_reads(arguments: tuple[str, ...], code: int) -> None:
    writer = broken_pipe()
    try:
        done = run_with(arguments, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode == code


@pytest.mark.parametrize("arguments", [("probe", "nothing.yaml"), ("probe",)])
def test_nobody_reads_the_error(arguments: tuple[str, ...]) -> None:
    """``gradprobe probe nothing.yaml 2>&1 | true``: an error stays an error."""
    writer = broken_pipe()
    try:
        done = run_with(arguments, stdout=writer, stderr=writer, stdin=subprocess.DEVNULL)
    finally:
        os.close(writer)
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(
            (*VANISHING[:3], "400", "--width", "4", "--all", "--format", "json"),
            1,
            id="probe",
            marks=pytest.mark.slow,
        ),
        pytest.param(("schema",), 0, id="schema"),
    ],
)
def test_head(arguments: tuple[str, ...], code: int) -> None:
    line = " ".join([*COMMAND, *arguments]) + ' | head -1; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    first, status = done.stdout.splitlines()
    assert first
    assert status == str(code)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("probe - <&-", 2),
        ("--version >&-", 2),
        ("schema >&-", 2),
        ("rules >&-", 2),
        ("probe nothing.yaml 2>&-", 2),
        ("--version 2>&-", 0),
    ],
)
def test_closed_from_the_start(line: str, code: int) -> None:
    done = subprocess.run(
        ["bash", "-c", " ".join(COMMAND) + " " + line],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    if code:
        assert done.stdout == ""


# ---- a terminal that knows ASCII only


def ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Standard output as ``PYTHONIOENCODING=ascii`` makes it; what is written to it.

    No fixture, since pytest sets standard output anew between those and the test.
    """
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    return written


@pytest.mark.parametrize(
    "arguments",
    [
        HEALTHY,
        VANISHING,
        (*VANISHING, "--color", "always"),
        COMPARISON,
        ("rules",),
        ("rules", "GP101"),
        ("schema",),
    ],
    ids=lambda value: "-".join(value[:2] + value[-1:]),
)
def test_ascii(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    written = ascii_terminal(monkeypatch)
    result = run(*arguments)
    assert result.err == ""
    assert result.code == (1 if arguments[:6] == VANISHING[:6] and "sigmoid" in arguments else 0)
    sys.stdout.flush()
    out = written.getvalue().decode("ascii")
    assert "\\u" not in out.replace('"\\\\u', "")
    if arguments[0] in ("probe", "compare"):
        assert "####" in out


def test_names(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = ascii_terminal(monkeypatch)
    path = tmp_path / "n.yaml"
    spec = "name: дом 日本\ninput: {shape: [6]}\nlayers: [Linear: {out_features: 4, name: é}]\n"
    path.write_text(spec, encoding="utf-8")
    result = run("probe", str(path))
    assert (result.code, result.err) == (0, "")
    sys.stdout.flush()
    assert "\\xe9" in written.getvalue().decode("ascii")


def test_a_process(run_process: Run, tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("ünput: {shape: [6]}\n", encoding="utf-8")
    commands = (("probe", "--help"), ("rules",), ("probe", str(path)))
    for arguments in commands:
        result = run_process(*arguments, PYTHONIOENCODING="ascii")
        assert (result.out + result.err).isascii(), arguments
        assert "Traceback" not in result.err
    assert result.code == 2


# ---- columns


def cells(line: str) -> int:
    """Columns that a terminal gives to ``line``."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


WIDTHS = {"": 80, "140": 140, "60": 60, "80": 80, "40": 40, "240": 240}
STRANGE = ["0", "20", "1", "-80", "abc", "8.5", "1e3", "²", "٨٠", "9" * 5000, "100000"]
WIDE_SPEC = """\
name: 日本語の名前のネットワーク、とても長い名前、とても長い名前、とても長い名前、とても長い名前
input: {shape: [6]}
layers:
- Linear: {out_features: 6, name: a-name-that-goes-on-and-on-and-on-and-on-until-it-has-to-be-cut}
- Linear: {out_features: 6, name: 日本語の名前がここにもありますが長すぎます、長すぎます}
- residual: {layers: [Linear: {out_features: 6}], name: r}
- TransformerEncoderLayer: {nhead: 2}
- repeat: {times: 40, layers: [Linear: {out_features: 6}, Sigmoid]}
- Linear: {out_features: 4}
check: {ignore: [{rule: GP101, reason: %s}]}
""" % ("a reason without an end " * 20)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    monkeypatch.chdir(tmp_path)
    folder = Path("a/rather/long/path/to/a/folder/that/holds/the/specification/of/networks/of/all")
    folder.mkdir(parents=True)
    (folder / "wide.yaml").write_text(WIDE_SPEC.replace("[6]", "[3, 6]"), encoding="utf-8")
    wide = str(folder / "wide.yaml")
    return [
        HEALTHY,
        VANISHING,
        (*HEALTHY, "--level", "leaves"),
        ("probe", "residual", "--depth", "60", "--width", "8", "--init", "kaiming_normal"),
        ("probe", wide),
        COMPARISON,
        ("compare", "plain", "residual", wide, "plain", "--depth", "5", "--width", "8"),
        ("rules",),
        ("rules", "GP101"),
    ]


@pytest.mark.parametrize("columns", sorted(WIDTHS))
def test_no_line_is_wider_than_the_terminal(
    run: Run,
    networks: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    columns: str,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for arguments in networks:
        result = run(*arguments)
        assert result.err == ""
        widest = max(result.out.splitlines(), key=cells)
        assert cells(widest) <= WIDTHS[columns], (arguments, widest)
        assert not any(line != line.rstrip() for line in result.out.splitlines())


@pytest.mark.parametrize("columns", STRANGE, ids=[word[:8] for word in STRANGE])
def test_strange_columns(
    run: Run, networks: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for arguments in (*networks[:1], *networks[-2:], ("--help",), ("probe", "--help")):
        result = run(*arguments)
        assert (result.code, result.err) == (0, "")
        assert result.out


@pytest.mark.parametrize("columns", ["40", "60"])
def test_codes_and_numbers_are_not_cut(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = run("rules").out
    for code in ("GP101", "GP202", "GP402"):
        assert code in out
    out = run(*VANISHING).out
    assert not re.search(r"\d\.?…", out)
    assert re.search(r"^0 +Linear .*e-\d\d", out, re.MULTILINE)
    assert re.search(r"^1\.39 +\S+ +1(\.00)? ", out + " ", re.MULTILINE)


@pytest.mark.parametrize(
    "width", ["²", *(pytest.param(w, marks=pytest.mark.slow) for w in ("abc", "0"))]
)
def test_terminal_width(run_process: Run, width: str) -> None:
    """typer reads it at import, and takes nothing but a number."""
    for arguments in (("--help",), ("probe",)):
        result = run_process(*arguments, TERMINAL_WIDTH=width)
        assert result.code == (0 if arguments == ("--help",) else 2)
        assert result.out.startswith("Usage: gradprobe") == (arguments == ("--help",))
        assert result.err.startswith("gradprobe: error: missing") == (arguments == ("probe",))
        assert "Traceback" not in result.err


# ---- colour


@pytest.mark.parametrize(
    ("environment", "option", "escapes"),
    [
        ({}, None, False),
        ({"FORCE_COLOR": "1"}, None, True),
        ({"FORCE_COLOR": ""}, None, False),
        ({"NO_COLOR": "1"}, None, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, None, False),
        ({"NO_COLOR": "", "FORCE_COLOR": "1"}, None, True),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, None, True),
        ({"CLICOLOR_FORCE": "0", "COLORTERM": "truecolor"}, None, False),
        ({}, "auto", False),
        ({}, "always", True),
        ({"NO_COLOR": "1"}, "always", True),
        ({"FORCE_COLOR": "1"}, "never", False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "always", True),
    ],
    ids=lambda value: (
        "+".join(f"{k}={v}" for k, v in value.items()) or "nothing"
        if isinstance(value, dict)
        else str(value)
    ),
)
def test_colour(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    option: str | None,
    escapes: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wanted = () if option is None else ("--color", option)
    for arguments in (VANISHING, COMPARISON, ("rules",), ("rules", "GP101")):
        out = run(*arguments, *wanted).out
        assert ("\x1b" in out) == escapes
        if option == "always":  # the same text, whatever its colours
            plain = run(*arguments, "--color", "never").out
            bare = re.sub("\x1b\\[[0-9;]*m", "", out)
            assert [line.rstrip() for line in bare.split("\n")] == plain.split("\n")


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "CLICOLOR_FORCE"])
def test_colour_stays_out_of_files_json_and_errors(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    path = tmp_path / "report"
    run(*VANISHING, "-o", str(path))
    assert "\x1b" not in path.read_text()
    assert "█" in path.read_text()
    json.loads(run(*VANISHING, "--format", "json").out)
    assert "\x1b" not in run("probe", "nothing.yaml").err


def test_colour_no_escape_at_all_where_both_are_set(run_process: Run) -> None:
    for arguments in (("--help",), ("probe",)):
        result = run_process(*arguments, NO_COLOR="1", FORCE_COLOR="1")
        assert "\x1b" not in result.out + result.err


# ---- the user changes their mind

# Run by the interpreter before gradprobe: interrupts it as soon as a module is looked for.
SITECUSTOMIZE = """
import os, signal, sys

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

def swallowed():
    try:
        interrupt()
    except BaseException:
        pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            sys.meta_path.remove(self)
            {action}

sys.meta_path.insert(0, Finder())
"""
FIRST = "gradprobe.cli.app"  # what main imports first


def start(
    tmp_path: Path, arguments: tuple[str, ...], name: str, action: str
) -> subprocess.Popen[str]:
    """gradprobe in a process of its own, where ``action`` happens when ``name`` is imported."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE.format(name=name, action=action))
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )


def interrupted(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


# faulthandler is imported in the middle of gradprobe.process.
@pytest.mark.parametrize("name", ["yaml", FIRST, "torch", "torch.nn", "faulthandler"])
def test_interrupt_while_a_module_is_imported(tmp_path: Path, name: str) -> None:
    interrupted(start(tmp_path, HEALTHY, name, "interrupt()"))


@pytest.mark.parametrize(
    "action",
    [
        pytest.param('exec("interrupt()")', id="inside-exec"),  # Python notes it, and dies of it
        pytest.param("swallowed()", id="swallowed"),  # as in a weak reference's callback
    ],
)
def test_interrupt_at_an_awkward_moment(tmp_path: Path, action: str) -> None:
    interrupted(start(tmp_path, HEALTHY, "torch._utils", action))


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5, 1.0])
def test_interrupt_after(tmp_path: Path, delay: float) -> None:
    slow = ("probe", "plain", "--depth", "12000", "--width", "16")
    process = start(tmp_path, slow, FIRST, 'print("ready", file=sys.stderr, flush=True)')
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    time.sleep(delay)
    if process.poll() is not None:
        process.communicate()
        pytest.skip("it was done before it could be interrupted")
    process.send_signal(signal.SIGINT)
    interrupted(process)


# ---- what does without torch

IMPORTS = """
import sys
from gradprobe.cli.main import main
for arguments in {commands!r}:
    try:
        main(arguments)
    except SystemExit as stopped:
        heavy = not sys.modules.keys().isdisjoint(["torch", "msgspec"])
        print("\\nexit", stopped.code, heavy, file=sys.stderr)
"""


def torch_is_imported(commands: list[list[str]], **environment: str) -> list[tuple[str, bool]]:
    """The exit code of each command, and whether torch or msgspec was imported by then."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(commands=commands)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    found = re.findall(r"^exit (\w+) (\w+)$", done.stderr, re.MULTILINE)
    assert len(found) == len(commands), done.stderr
    return [(code, imported == "True") for code, imported in found]


def test_torch_is_not_imported(tmp_path: Path) -> None:
    good, bad, missing = (str(tmp_path / f"{name}.yaml") for name in ("good", "bad", "missing"))
    Path(good).write_text(GOOD)
    Path(bad).write_text(GOOD.replace("Linear", "Lienar"))
    commands = {
        "0": [
            ["--help"],
            ["probe", "--help"],
            ["--version"],
            ["--show-completion", "bash"],
            ["schema"],
            ["rules"],
            ["rules", "GP101"],
            ["probe", "plain", "--emit-spec"],
            ["probe", good, "--emit-spec"],
        ],
        "2": [
            ["probe"],
            ["probe", "plain", "--depth", "x"],
            ["probe", "plain", "--depth", "0"],
            ["probe", "plain", "--depth", "1000000"],
            ["probe", "plain", "--activation", "rleu"],
            ["probe", "plain", "--max-memory", "lots"],
            ["probe", missing],
            ["probe", bad],
            ["probe", "-"],
            ["compare", good, bad],
            ["compare", "-", "-"],
            ["rules", "GP999"],
        ],
    }
    # Or the shell is that of a parent process, and under cron or nohup there is none.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for code, wanted in commands.items():
        for arguments, found in zip(wanted, torch_is_imported(wanted, **named), strict=True):
            assert found == (code, False), arguments


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gradprobe pro", "probe"),
        pytest.param("gradprobe probe --de", "--depth", marks=pytest.mark.slow),
    ],
)
def test_completion_does_without_torch(words: str, expected: str) -> None:
    environment = {
        "_GRADPROBE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    assert torch_is_imported([[]], **environment) == [("0", False)]
    done = subprocess.run(
        COMMAND,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert expected in done.stdout.split()


@pytest.mark.slow
def test_the_proof_can_fail() -> None:
    """A probe does import torch, so the cases above would notice."""
    assert torch_is_imported([["probe", "plain", "--depth", "3"]]) == [("0", True)]


# ---- the same every time


def test_a_message_does_not_depend_on_the_order_of_a_set(run: Run, tmp_path: Path) -> None:
    """torch prints sets in some messages, and their order changes from run to run."""
    path = tmp_path / "net.yaml"
    layer = "Conv1d: {out_channels: 2, kernel_size: 1, padding_mode: x}"
    path.write_text(f"input: {{shape: [3, 6]}}\nlayers: [{layer}]\n")
    result = run("probe", str(path))
    assert result.code == 2
    words = re.findall(r"'(circular|reflect|replicate|zeros)'", result.err)
    assert words == sorted(words)
