"""Bad input, one case a line: each ends in exit 2 with one message, at the right place, at once.

In a spec below ``▲`` stands right before the place that the message must name and point at. The
ids begin with the case's number in the project's list of bad inputs.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import signal
import struct
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import Result, Run
from safetensors.torch import save_file

import gradprobe
from gradprobe.spec.network import NetworkSpec

HEAD = "input: {shape: [6]}\n"
TAIL = "layers: [Linear: {out_features: 4}]\n"
GOOD = HEAD + TAIL
LEAKY = HEAD + "layers:\n  - Linear: {out_features: 5}\n  - LeakyReLU: {negative_slope: ▲%s}\n"
WIDTH = HEAD + "layers:\n  - Tanh\n  - Linear: {bias: true, out_features: ▲%s}\n"
BIAS = HEAD + "layers: [Linear: {out_features: 4, bias: ▲%s}]\n"
NAME = HEAD + "layers:\n- sequential:\n  - Linear: {out_features: 4, name: ▲%s}\n"
# Of the processor, and of the clock: a case may not wait either.
LIMITS = {signal.SIGPROF: (signal.ITIMER_PROF, 5), signal.SIGALRM: (signal.ITIMER_REAL, 60)}
LONGEST_LINE = 400  # of a message: a word of a megabyte is not repeated whole
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


class TooSlow(BaseException):
    """Not an ``Exception``, which a boundary would turn into a message."""


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    """A case that takes too long fails, instead of holding up the others."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"took more than {LIMITS[signal.Signals(number)][1]} s")

    before = {number: signal.signal(number, stop) for number in LIMITS}
    for timer, seconds in LIMITS.values():
        signal.setitimer(timer, seconds)
    yield
    for timer, _ in LIMITS.values():
        signal.setitimer(timer, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec file in the working directory, so that its name is short."""
    monkeypatch.chdir(tmp_path)
    return Path("net.yaml")


@pytest.fixture
def probe(run: Run, file: Path) -> Run:
    """Probe a spec given as text or bytes, with further options."""

    def call(spec: str | bytes, *options: str) -> Result:
        file.write_bytes(spec if isinstance(spec, bytes) else spec.replace("▲", "").encode())
        return run("probe", str(file), *options)

    return call


def clean(result: Result) -> None:
    """Exit 2 with nothing but a message of short lines, without a traceback or a raw escape."""
    assert result.code == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert "gradprobe: internal error" not in result.err
    assert not RAW.search(result.err)
    assert max(map(len, result.err.splitlines())) <= LONGEST_LINE
    assert result.err.endswith("\n")


def refused(result: Result, file: Path | str, spec: str, *words: str) -> None:
    """The message names the place of ``▲``, shows its line with a caret, and has ``words``."""
    clean(result)
    before = spec[: spec.index("▲")]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    first, *rest = result.err.splitlines()
    assert first.startswith(f"{file}:{line}:{column}: error: "), result.err
    for word in words:
        assert word in result.err, result.err
    source = spec.replace("▲", "").split("\n")[line - 1]
    if source.strip():
        shown, caret = rest[:2]
        assert shown.startswith(f"{line:>5} | ")
        assert re.fullmatch(" *\\^", caret)
        assert _at(shown, len(caret) - 1) == source[column - 1 :][:1].strip()


def _at(shown: str, cell: int) -> str:
    """What stands in a terminal's ``cell`` of a line; a wide character takes two cells."""
    position = 0
    for character in shown:
        if position == cell:
            return character.strip()
        position += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return ""


def told(result: Result, *words: str) -> None:
    """One message without a file position, with ``words``."""
    clean(result)
    assert result.err.startswith("gradprobe: error: "), result.err
    for word in words:
        assert word in result.err, result.err


def misused(result: Result, *words: str) -> None:
    """A usage error: which option, and what is wrong with it; a spec's word has a place in it."""
    clean(result)
    for word in ("error: ", *words):
        assert word in result.err, result.err


def cases(*rows: tuple[Any, ...]) -> Any:
    """``(id, first, *words)`` → parameters ``first, words``."""
    values = [pytest.param(first, words, id=name) for name, first, *words in rows]
    return pytest.mark.parametrize(("spec", "words"), values)


# ---- 1 to 18: YAML itself


@cases(
    ("1-no-bytes", "▲", "empty"),
    ("1-blank-lines", "▲\n\n   \n", "empty"),
    ("1-comment-only", "▲# nothing here\n# nor here\n", "empty"),
    ("1-marker-only", "▲---\n", "empty"),
    ("1-marker-and-comment", "▲--- # soon\n...\n", "empty"),
    ("2-list", "▲- input\n- layers\n", "expected a mapping"),
    ("2-list-behind-comment", "# a spec\n\n▲- Tanh\n", "expected a mapping"),
    ("2-flow-list", "▲[Linear, Tanh]\n", "expected a mapping"),
    ("2-word", "▲residual\n", "expected a mapping"),
    ("2-number", "▲17\n", "expected a mapping"),
    ("2-string", '▲"input: {shape: [4]}"\n', "expected a mapping"),
    ("3-two-documents", GOOD + "▲---\n" + GOOD, "second document"),
    ("3-second-is-empty", "---\n" + GOOD + "▲---\n", "second document"),
    ("3-three-documents", "# one\n---\n" + GOOD + "...\n▲---\nloss: mse\n---\n", "second document"),
    ("4-tab-indents-key", "input:\n▲\tshape: [6]\n" + TAIL, "tab", "spaces"),
    ("4-tab-indents-item", HEAD + "layers:\n▲\t- Tanh\n", "tab"),
    ("4-tab-behind-spaces", HEAD + "layers:\n  ▲\t- Tanh\n", "tab"),
    ("5-bracket", HEAD + "layers: ▲[Linear: {out_features: 3}\n", "not closed"),
    ("5-brace", "input: ▲{shape: [6]\n" + TAIL, "not closed"),
    ("5-inner-bracket", HEAD + "layers: [Tanh, residual: ▲[Linear, Tanh\n", "not closed"),
    ("5-wrong-closer", "input: {shape: ▲[6}}\n" + TAIL, "not closed"),
    ("5-bracket-over-lines", HEAD + "layers: ▲[\n  Tanh,\n  ReLU\nloss: mse\n", "not closed"),
    ("5-double-quote", 'name: ▲"a net\n' + GOOD, "not closed"),
    ("5-single-quote", "name: ▲'it''s a net\n" + GOOD, "not closed"),
    ("6-undefined", HEAD + "layers: ▲*body\n", "undefined alias", "body"),
    ("6-undefined-item", HEAD + "layers:\n  - Tanh\n  - residual: [▲*f]\n", "undefined alias"),
    ("6-used-before", HEAD + "layers: [▲*l, &l Tanh]\n", "undefined alias"),
    ("6-megabyte-name", HEAD + "layers: ▲*" + "a" * 10**6 + "\n", "undefined alias"),
    ("7-top", HEAD + "layers: [Tanh]\n▲layers: [ReLU]\n", "line 2", "line 3"),
    ("7-flow", "input: {shape: [6], ▲shape: [7]}\n" + TAIL, "'shape'", "line 1"),
    (
        "7-in-layer",
        HEAD + "layers:\n  - repeat:\n      times: 2\n      layers: [Tanh]\n      ▲times: 9\n",
        "'times'",
        "line 4",
        "line 6",
    ),
    (
        "7-quoted-and-plain",
        HEAD + "layers:\n  - Linear:\n      bias: true\n      ▲'bias': false\n",
        "'bias'",
        "line 4",
        "line 5",
    ),
    ("10-merge", "input: {▲<<: {shape: [6]}}\n" + TAIL, "merge"),
    (
        "10-merge-alias",
        HEAD + "layers:\n  - Linear: &b {out_features: 3}\n  - Linear:\n      ▲<<: *b\n",
        "merge",
    ),
    (
        "10-merge-list",
        HEAD + "check:\n  thresholds: &t {vanishing: 1e-5}\n  ▲<<: [*t, *t]\n" + TAIL,
        "merge",
    ),
    ("11-list-in-itself", HEAD + "layers: &a [▲*a]\n", "contains itself"),
    ("11-mapping-in-itself", "input: &i {shape: ▲*i}\n" + TAIL, "contains itself"),
    (
        "11-deep-in-itself",
        HEAD + "layers: &a\n  - Tanh\n  - residual: [{sequential: [ReLU, ▲*a]}]\n",
        "contains itself",
    ),
    ("12-brackets", "[" * 64 + "▲[" + "[" * 435 + "]" * 500, "deep"),
    ("12-brackets-unclosed", "[" * 64 + "▲" + "[" * 49_936, "deep"),
    ("12-braces", "{a: " * 64 + "▲" + "{a: " * 300 + "1" + "}" * 364, "deep"),
    (
        "12-residuals",
        HEAD + "layers: " + "[residual: " * 31 + "[▲residual: " + "[residual: " * 500,
        "deep",
    ),
    ("15-python-apply", "name: ▲!!python/object/apply:os.system [ls]\n" + GOOD, "unsupported tag"),
    ("15-python-name", HEAD + "layers: [▲!!python/name:os.getcwd '']\n", "unsupported tag"),
    ("15-python-module", "input: ▲!!python/module:os\n" + TAIL, "unsupported tag"),
    ("15-python-root", "--- ▲!!python/object:builtins.dict\n" + GOOD, "unsupported tag"),
    ("16-include", "input: ▲!include /etc/passwd\n" + TAIL, "unsupported tag '!include'"),
    ("16-env", "name: ▲!ENV ${HOME}\n" + GOOD, "unsupported tag '!ENV'"),
    ("17-bool", "name: ▲!!bool m\n" + GOOD, "unsupported tag '!!bool'"),
    ("18-int", "name: ▲!!int\n" + GOOD, "unsupported tag '!!int'"),
    ("18-float", LEAKY % "!!float 'x'", "unsupported tag '!!float'"),
    ("18-binary", "name: ▲!!binary aGk\n" + GOOD, "unsupported tag"),
    ("18-set", "input: ▲!!set {shape}\n" + TAIL, "unsupported tag"),
    ("18-key", "▲!!str input: {shape: [6]}\n" + TAIL, "unsupported tag"),
    ("18-bare", HEAD + "layers: ▲! [Tanh]\n", "unsupported tag"),
    ("18-verbatim", WIDTH % "!<tag:yaml.org,2002:int> 3", "unsupported tag"),
    ("18-own-handle", "%TAG ! tag:me,2024:\n---\nname: ▲!x y\n" + GOOD, "unsupported tag"),
)
def test_yaml(probe: Run, file: Path, spec: str, words: tuple[str, ...]) -> None:
    refused(probe(spec), file, spec, *words)


def bomb(item: str, levels: int, fold: int) -> str:
    """Anchors on top of each other: ``fold ** levels`` nodes from a few hundred bytes."""
    lines = [f"  - &a0 {item}"]
    lines += [f"  - &a{i + 1} [{', '.join([f'*a{i}'] * fold)}]" for i in range(levels)]
    return HEAD + "layers:\n" + "\n".join(lines) + "\n"


def merges(levels: int) -> str:
    lines = ["a0: &a0 {k0: 1}"]
    lines += [f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}], k: 1}}" for i in range(levels)]
    return "\n".join(lines) + "\n"


def staircase(levels: int, depth: int, kind: str) -> str:
    """Each level's innermost layer is an alias of the one before: never deep, until expanded."""
    lines = [HEAD + "layers:", "- Linear: {out_features: 6}", f"- {kind}: &a0 [Tanh]"]
    for i in range(levels):
        open_, close = f"[{kind}: " * (depth - 1), "]" * (depth - 1)
        lines.append(f"- {kind}: &a{i + 1} {open_}*a{i}{close}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        pytest.param(bomb("Tanh", 9, 9), "too large", id="9-lists-of-nine"),
        pytest.param(bomb("Linear: {out_features: 4}", 30, 2), "too large", id="9-lists-of-two"),
        pytest.param(bomb("{}", 5, 12), "too large", id="9-lists-of-mappings"),
        pytest.param(merges(12), "", id="10-merge-bomb"),
        pytest.param(staircase(12, 25, "sequential"), "deep", id="12-deep-through-aliases"),
        pytest.param(staircase(30, 10, "residual"), "deep", id="12-residuals-through-aliases"),
        pytest.param(HEAD + "layers:\n" + "- Tanh\n" * 410_000, "too large", id="14-megabytes"),
        pytest.param(HEAD + TAIL + "# " + "x" * 2**20, "too large", id="14-comment"),
        pytest.param(HEAD + "layers:\n" + "- Tanh\n" * 20_001, "too large", id="14-nodes"),
        pytest.param("input: {shape: [" + "1," * 30_000 + "]}", "too large", id="14-dimensions"),
    ],
)
def test_expansion(probe: Run, file: Path, spec: str, word: str) -> None:
    result = probe(spec)
    clean(result)
    assert re.match(re.escape(str(file)) + r":\d+:\d+: error: ", result.err)
    assert word in result.err


def test_14_size_is_refused_before_parsing(probe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yaml.SafeLoader", None)
    result = probe(b"layers: [" + b"Tanh, " * 600_000)
    clean(result)
    assert "1 MiB" in result.err


# ---- 20 to 28: scalars


@cases(
    ("20-month-13-as-width", WIDTH % "2024-13-45", "expected an integer"),
    ("20-date-as-width", WIDTH % "2024-12-24", "expected an integer"),
    ("20-timestamp-as-number", LEAKY % "2001-12-14t21:59:43.10-05:00", "expected a number"),
    ("20-date-as-shape", "input: {shape: [3, ▲1999-99-99]}\n" + TAIL, "expected an integer"),
    ("20-date-as-name", "name: ▲2024-02-31\n" + GOOD, "expected a string", "'2024-02-31'"),
    ("20-date-as-list", HEAD + "layers: ▲2024-02-03\n", "expected a list"),
    ("21-digits-as-width", WIDTH % ("7" * 4301), "out of range"),
    ("21-negative-digits", WIDTH % ("-" + "1" * 5000), "out of range"),
    ("21-digits-as-times", HEAD + "layers: [repeat: {times: ▲%s, layers: [Tanh]}]" % ("9" * 9999)),
    ("21-digits-as-shape", "input: {shape: [▲%s]}\n" % ("1" * 4301) + TAIL, "out of range"),
    ("21-digits-as-number", LEAKY % ("3" * 4301), "must be finite"),
    ("21-digits-as-name", "name: ▲%s\n" % ("3" * 4301) + GOOD, "expected a string"),
    ("24-yes", BIAS % "yes", "expected true or false", "'yes'"),
    ("24-no", BIAS % "no", "expected true or false"),
    ("24-off", BIAS % "off", "expected true or false"),
    ("24-capital", BIAS % "True", "expected true or false"),
    ("24-quoted", BIAS % "'true'", "expected true or false"),
    ("24-one", BIAS % "1", "expected true or false"),
    ("24-null", BIAS % "null", "expected true or false"),
    ("24-zero-init", HEAD + "layers:\n- residual: {layers: [Tanh], zero_init: ▲on}\n", "true or"),
    ("24-name-on", NAME % "on", "expected a string", "quote it"),
    ("24-name-no", NAME % "NO", "expected a string", "quote it"),
    ("24-name-null", NAME % "~", "expected a string", "quote it"),
    ("24-name-number", NAME % "1.5", "expected a string", "quote it"),
    ("24-loss-off", GOOD + "loss: ▲off\n", "expected a string"),
    ("24-string-argument", HEAD + "layers: [GELU: {approximate: ▲yes}]\n", "expected a string"),
    ("26-octal", WIDTH % "017", "ambiguous"),
    ("26-eight", WIDTH % "08", "ambiguous"),
    ("26-signed-octal", WIDTH % "+012", "ambiguous"),
    ("26-hexadecimal", WIDTH % "0x1F", "ambiguous"),
    ("26-binary", WIDTH % "0b101", "ambiguous"),
    ("26-new-octal", WIDTH % "0o17", "ambiguous"),
    ("26-underscore", WIDTH % "1_000", "ambiguous"),
    ("26-sexagesimal", WIDTH % "1:30", "expected an integer"),
    ("26-octal-shape", "input: {shape: [▲010]}\n" + TAIL, "ambiguous"),
    ("26-octal-number", LEAKY % "017", "ambiguous"),
    ("26-eight-number", LEAKY % "-08", "ambiguous"),
    ("26-hexadecimal-number", LEAKY % "0x1F", "number"),
    ("26-sexagesimal-number", LEAKY % "1:30", "expected a number"),
    ("26-underscore-number", LEAKY % "1_0.5", "number"),
    ("27-nan", LEAKY % ".nan", "must be finite"),
    ("27-NaN", LEAKY % ".NaN", "must be finite"),
    ("27-inf", LEAKY % "-.inf", "must be finite"),
    ("27-plus-inf", LEAKY % "+.Inf", "must be finite"),
    ("27-overflow", LEAKY % "1.0e+400", "must be finite"),
    ("27-overflow-without-sign", LEAKY % "-3e999", "must be finite"),
    ("27-word", LEAKY % "nan", "expected a number"),
    ("27-threshold", GOOD + "check: {thresholds: {weak_low: ▲.inf}}\n", "must be finite"),
    (
        "27-init",
        HEAD + "layers: [Linear: {out_features: 4, init: {weight: {normal: {std: ▲.inf}}}}]\n",
        "must be finite",
    ),
    (
        "27-scale",
        HEAD + "layers: [residual: {layers: [Tanh], skip_scale: ▲1e309}]\n",
        "must be finite",
    ),
    ("28-true", WIDTH % "true", "expected an integer", "'true'"),
    ("28-float", WIDTH % "12.0", "expected an integer", "'12.0'"),
    ("28-string", WIDTH % '"12"', "expected an integer", "the string '12'"),
    ("28-exponent", WIDTH % "1e3", "expected an integer"),
    ("28-list", WIDTH % "[12]", "expected an integer", "a list"),
    ("28-mapping", WIDTH % "{times: 3}", "expected an integer", "a mapping"),
    ("28-null", WIDTH % "null", "expected an integer"),
    ("28-words", WIDTH % "4 8", "expected an integer"),
    ("28-float-in-shape", "input: {shape: [3, ▲8.0]}\n" + TAIL, "expected an integer"),
    ("28-list-in-shape", "input: {shape: [▲[3]]}\n" + TAIL, "expected an integer"),
    ("28-shape-as-number", "input: {shape: ▲6}\n" + TAIL, "expected a list"),
    ("28-times", HEAD + "layers: [repeat: {times: ▲2.5, layers: [Tanh]}]\n", "expected an integer"),
    ("28-tokens", "input: {shape: [6], tokens: ▲true}\n" + TAIL, "expected an integer"),
    ("28-batch-size", "input: {shape: [6], batch_size: ▲'8'}\n" + TAIL, "expected an integer"),
    (
        "28-float-in-list",
        "input: {shape: [3, 9, 9]}\nlayers: [Conv2d: {out_channels: 2, kernel_size: [3, ▲3.0]}]\n",
        "expected an integer",
    ),
)
def test_scalars(probe: Run, file: Path, spec: str, words: tuple[str, ...]) -> None:
    refused(probe(spec), file, spec, *words)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("2E4", 2e4),
        ("+1.5", 1.5),
        (".25", 0.25),
        ("5.", 5.0),
        ("-0", 0.0),
        ("3", 3.0),
        ("-1.0e+2", -100.0),
        ("6e-07", 6e-7),
    ],
)
def test_23_numbers(parse: Callable[[str], NetworkSpec], text: str, value: float) -> None:
    found = parse(LEAKY.replace("▲", "") % text).layers[1].arguments["negative_slope"]
    assert found == value
    assert isinstance(found, float)


@pytest.mark.parametrize("name", ["on", "yes", "null", "1e3", "2024-01-01", "~", "0x10"])
def test_24_quoted_words_are_names(probe: Run, name: str) -> None:
    result = probe(NAME % f"'{name}'", "--level", "leaves", "--format", "json")
    assert result.code == 0
    assert f"0.{name}" in [row["name"] for row in json.loads(result.out)["rows"]]


# ---- 29 to 33: bytes and characters


@pytest.mark.parametrize(
    ("before", "bad", "words"),
    [
        pytest.param(HEAD + "name: a", b"\0b\n", ("U+0000", "offset 27"), id="29-nul"),
        pytest.param("", b"\0", ("U+0000", "offset 0"), id="29-nul-first"),
        pytest.param("name: 'a", b"\x1b[31m'\n", ("U+001B", "offset 8"), id="29-raw-escape"),
        pytest.param(HEAD + "# be", b"\x07ll\n", ("U+0007", "offset 24"), id="29-bell-in-comment"),
        pytest.param("name: é", b"\x7f\n", ("U+007F", "offset 8"), id="29-delete"),
        pytest.param("name: é", b"\xc2\x9b\n", ("U+009B", "offset 8"), id="29-c1-control"),
        pytest.param("name: caf", b"\xe9\n", ("UTF-8", "0xe9", "offset 9"), id="30-latin-1"),
        pytest.param("# ü\nname: na", b"\xefve\n", ("UTF-8", "offset 13"), id="30-latin-1-later"),
        pytest.param("# é", b"\xc3", ("UTF-8", "offset 4"), id="30-cut-short"),
        pytest.param("name: ", b"\xed\xa0\x80\n", ("UTF-8", "offset 6"), id="30-surrogate"),
        pytest.param("name: ", b"\xc0\xaf\n", ("UTF-8", "offset 6"), id="30-overlong"),
    ],
)
def test_bytes(probe: Run, file: Path, before: str, bad: bytes, words: tuple[str, ...]) -> None:
    result = probe(before.encode() + bad + GOOD.encode())
    clean(result)
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert result.err.startswith(f"{file}:{line}:{column}: error: ")
    for word in words:
        assert word in result.err


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_30_other_unicode_encodings(probe: Run, file: Path, encoding: str) -> None:
    result = probe(GOOD.encode(encoding))
    clean(result)
    assert result.err.startswith(f"{file}:1:")
    assert "UTF-8" in result.err or "U+0000" in result.err


def test_30_a_byte_order_mark_is_allowed(probe: Run) -> None:
    assert probe(GOOD.encode("utf-8-sig")).code == 0
    result = probe(b"\xef\xbb\xbf")
    clean(result)
    assert "empty" in result.err


NASTY = [
    pytest.param('"a\\e[31mred\\e[0m"', r"a\x1b[31mred\x1b[0m", id="32-ansi"),
    pytest.param('"\\u202Ereversed"', r"\u202ereversed", id="32-bidi-escape"),
    pytest.param('"left \u202eright"', r"left \u202eright", id="32-bidi-raw"),
    pytest.param('"zero\u200bwidth"', r"zero\u200bwidth", id="32-zero-width"),
    pytest.param('"two\\nlines\\tand\\0nul"', r"two\nlines\tand\x00nul", id="32-controls"),
    pytest.param('"\\uD800"', r"\ud800", id="32-surrogate"),
    pytest.param('"bell\\a \\x9b"', r"bell\x07 \x9b", id="32-bell-and-csi"),
]


@pytest.mark.parametrize(("name", "shown"), NASTY)
@pytest.mark.parametrize("options", [(), ("--color", "always"), ("--level", "leaves")])
def test_32_names_are_printed_escaped(
    probe: Run, name: str, shown: str, options: tuple[str, ...]
) -> None:
    spec = f"name: {name}\n{HEAD}layers: [Linear: {{out_features: 4, name: {name}}}, Tanh]\n"
    result = probe(spec, *options)
    assert result.code == 0, result.err
    out = re.sub("\x1b\\[[0-9;]*m", "", result.out) if options[:1] == ("--color",) else result.out
    assert not RAW.search(out)
    assert shown in out.splitlines()[0]
    assert shown[-6:] in out.split("\nrow ")[1]


@pytest.mark.parametrize(("name", "shown"), NASTY)
def test_32_json_is_ascii(probe: Run, name: str, shown: str) -> None:
    spec = f"{HEAD}layers: [Linear: {{out_features: 4, name: {name}}}]\n"
    result = probe(spec, "--format", "json")
    assert result.code == 0, result.err
    assert result.out.isascii()
    assert not RAW.search(result.out)
    json.loads(result.out)


@pytest.mark.parametrize(("name", "shown"), NASTY)
def test_32_emitted_specs_are_printed_escaped(
    probe: Run, run: Run, tmp_path: Path, name: str, shown: str
) -> None:
    spec = f"name: {name}\n{HEAD}layers: [Linear: {{out_features: 4, name: {name}}}]\n"
    result = probe(spec, "--emit-spec")
    assert result.code == 0, result.err
    assert not RAW.search(result.out)
    again = tmp_path / "again.yaml"
    assert probe(spec, "--emit-spec", "-o", str(again)).code == 0
    assert run("probe", str(again), "--emit-spec").out == result.out


@cases(
    ("32-key", HEAD + TAIL + '▲"a\\e[31m": 1\n', r"a\x1b[31m"),
    ("32-key-surrogate", '▲"\\uDFFF": 1\n' + GOOD, r"\udfff"),
    ("32-layer", HEAD + 'layers: [▲"Re\\u202elu"]\n', r"Re\u202elu"),
    ("32-scalar", WIDTH % '"\\e[2J"', r"\x1b[2J"),
    ("32-raw-bidi-in-the-line", HEAD + "layers: [▲'\u202eReLU']\n", r"\u202eReLU"),
    ("32-newline", HEAD + 'loss: ▲"m\\nse"\n' + TAIL, r"m\nse"),
    ("32-alias", HEAD + "layers: [▲*a-b]\n", "a-b"),
    ("32-megabyte-word", HEAD + "layers: [▲" + "Linear" * 100_000 + "]\n", "unknown layer"),
    ("32-megabyte-key", GOOD + "▲? " + "k" * 500_000 + "\n: 1\n", "unknown key"),
    ("32-megabyte-string", GOOD + "loss: ▲'" + "k" * 500_000 + "'\n", "loss"),
    ("32-wide-characters", HEAD + "layers: [Linear: {name: 日本語の層, ▲out_feature: 4}]\n"),
    ("32-far-to-the-right", HEAD + "layers: [" + "Tanh, " * 40 + "▲Rleu]\n", "ReLU"),
)
def test_messages_about_strange_words(
    probe: Run, file: Path, spec: str, words: tuple[str, ...]
) -> None:
    refused(probe(spec), file, spec.replace("▲? ", "? ▲"), *words)


MARKUP = ["layers[attn]", "[bold red]x[/]", "[/]", ":smile:", "a\\[b]", "{x}", "%s", "link=x"]


@pytest.mark.parametrize("name", MARKUP)
@pytest.mark.parametrize("color", ["never", "always"])
def test_33_names_are_printed_verbatim(probe: Run, name: str, color: str) -> None:
    spec = f"name: '{name}'\n{HEAD}layers: [Linear: {{out_features: 4, name: '{name}'}}]\n"
    result = probe(spec, "--color", color)
    assert result.code == 0
    assert name in result.out.splitlines()[0]
    assert re.search(rf"^{re.escape(name)} +Linear", result.out, re.MULTILINE)


ATTRIBUTES = "forward training parameters _modules rows spec lines shortcut branch skip_scale T dim"


@pytest.mark.parametrize("name", ATTRIBUTES.split())
@pytest.mark.parametrize(
    "layers",
    [
        "- ▲Linear: {out_features: 6, name: %s}",
        "- residual: [▲Linear: {out_features: 6, name: %s}]",
        "- residual: {layers: [▲Linear: {out_features: 6, name: %s}], shortcut: Tanh}",
        "- repeat: {times: 2, layers: [▲Linear: {out_features: 6, name: %s}]}",
        "- concat: [[▲Linear: {out_features: 6, name: %s}], []]",
    ],
    ids=["top", "residual", "shortcut", "repeat", "concat"],
)
def test_33_names_that_torch_uses_itself(probe: Run, file: Path, name: str, layers: str) -> None:
    """A layer's name becomes a module's attribute: it works, or it is refused at its place."""
    spec = HEAD + "layers:\n" + layers % name + "\n"
    result = probe(spec)
    if result.code == 0:
        assert result.err == ""
    else:
        refused(result, file, spec, f"'{name}'")


# ---- 34 to 46: the spec's words, ranges, sizes and shapes


@cases(
    ("34-top", "▲inputs: {shape: [6]}\n" + TAIL, "'inputs'", "did you mean 'input'?"),
    ("34-top-case", HEAD + "▲Layers: [Tanh]\n", "did you mean 'layers'?"),
    ("34-input", "input: {▲shpae: [6]}\n" + TAIL, "did you mean 'shape'?"),
    ("34-layer", HEAD + "layers: [Linear: {▲out_feature: 4}]\n", "did you mean 'out_features'?"),
    ("34-layer-far", HEAD + "layers: [Linear: {▲widht: 4}]\n", "'widht'", "out_features"),
    ("34-repeat", HEAD + "layers: [repeat: {▲tiems: 4, layers: [Tanh]}]\n", "mean 'times'?"),
    ("34-residual", HEAD + "layers: [residual: {layers: [Tanh], ▲skip_scal: 1}]\n", "skip_scale"),
    ("34-concat", HEAD + "layers: [concat: {▲branch: [[Tanh]]}]\n", "did you mean 'branches'?"),
    ("34-sequential", HEAD + "layers: [sequential: {▲layer: [Tanh]}]\n", "mean 'layers'?"),
    (
        "34-nested",
        HEAD + "layers:\n- repeat:\n    times: 2\n    layers:\n    - LSTM: {▲hiden_size: 3}\n",
        "did you mean 'hidden_size'?",
    ),
    ("34-init-class", GOOD + "init: {▲Linaer: {weight: zeros}}\n", "did you mean 'Linear'?"),
    ("34-init-name", GOOD + "init: {Linear: {weight: ▲kaimng_normal}}\n", "'kaiming_normal'?"),
    ("34-init-parameter", GOOD + "init: {Linear: {wieght: ▲zeros}}\n", "wieght"),
    (
        "34-init-argument",
        GOOD + "init: {Linear: {weight: {normal: {▲sdt: 1}}}}\n",
        "did you mean 'std'?",
    ),
    (
        "34-init-of-layer",
        HEAD + "layers: [Linear: {out_features: 4, init: {wight: ▲zeros}}]\n",
        "'wight'",
        "weight",
    ),
    ("34-check", GOOD + "check: {▲treshold: {}}\n", "did you mean 'thresholds'?"),
    ("34-threshold", GOOD + "check: {thresholds: {▲vanish: 1}}\n", "did you mean 'vanishing'?"),
    ("34-ignore", GOOD + "check: {ignore: [{rule: GP101, ▲raeson: x}]}\n", "'reason'?"),
    ("34-rule", GOOD + "check: {ignore: [{rule: ▲GP999, reason: x}]}\n", "GP999"),
    ("34-rule-name", GOOD + "check: {ignore: [{rule: ▲vanishin, reason: x}]}\n", "'vanishing'"),
    ("34-loss", GOOD + "loss: ▲cross_entorpy\n", "did you mean 'cross_entropy'?"),
    ("36-times-0", HEAD + "layers: [repeat: {times: ▲0, layers: [Tanh]}]\n", "out of range"),
    ("36-times-negative", HEAD + "layers: [repeat: {times: ▲-7, layers: [Tanh]}]\n", "range"),
    ("36-width-0", WIDTH % "0", "0 is out of range"),
    ("36-width-negative", WIDTH % "-12", "-12 is out of range"),
    ("36-shape-0", "input: {shape: [3, ▲0]}\n" + TAIL, "out of range"),
    ("36-shape-empty", "input: {shape: ▲[]}\n" + TAIL, "shape"),
    ("36-tokens-0", "input: {shape: [6], tokens: ▲0}\n" + TAIL, "out of range"),
    ("36-batch-0", "input: {shape: [6], batch_size: ▲0}\n" + TAIL, "out of range"),
    ("36-layers-empty", HEAD + "layers: ▲[]\n", "empty"),
    ("36-residual-empty", HEAD + "layers: [residual: ▲[]]\n", "empty"),
    ("36-concat-empty", HEAD + "layers: [concat: ▲[]]\n", "empty"),
    ("36-threshold-0", GOOD + "check: {thresholds: {vanishing: ▲0}}\n", "greater than 0"),
    ("36-thresholds-cross", GOOD + "check: {thresholds: ▲{vanishing: 7}}\n", "ascend"),
    ("38-trillion", WIDTH % "1000000000000", "out of range"),
    ("38-two-to-the-63", WIDTH % str(2**63), "out of range"),
    ("38-two-to-the-64", WIDTH % str(2**64), "out of range"),
    ("38-negative", WIDTH % str(-(2**63) - 1), "out of range"),
    ("38-shape", f"input: {{shape: [3, ▲{10**15}]}}\n" + TAIL, "out of range"),
    ("38-tokens", f"input: {{shape: [3], tokens: ▲{2**62}}}\n" + TAIL, "out of range"),
    ("38-batch", f"input: {{shape: [3], batch_size: ▲{10**12}}}\n" + TAIL, "out of range"),
    ("39-times", HEAD + "layers:\n- ▲repeat: {times: 100000, layers: [Tanh]}\n", "50,000 layers"),
    (
        "39-nested",
        HEAD + "layers:\n- repeat: {times: 900, layers: [▲repeat: {times: 900, layers: [Tanh]}]}\n",
        "50,000 layers",
    ),
    (
        "39-of-nothing",
        HEAD + "layers:\n- ▲repeat: {times: 2000000000, layers: [concat: [[]]]}\n",
        "50,000 layers",
    ),
    (
        "39-recurrent",
        "input: {shape: [3, 6]}\nlayers:\n- ▲LSTM: {hidden_size: 2, num_layers: 1000000}\n",
        "num_layers",
    ),
    (
        "39-recurrent-repeated",
        "input: {shape: [3, 6]}\nlayers:\n- repeat:\n    times: 700\n"
        "    layers: [▲RNN: {hidden_size: 6, num_layers: 90}]\n",
        "50,000 layers",
    ),
    ("44-letters", HEAD + "layers: [▲rleu]\n", "unknown layer 'rleu'", "did you mean 'ReLU'?"),
    ("44-case", HEAD + "layers: [▲batchnorm1d]\n", "did you mean 'BatchNorm1d'?"),
    ("44-with-module", HEAD + "layers: [▲nn.Linear: {out_features: 3}]\n", "mean 'Linear'?"),
    ("44-call", HEAD + "layers: [▲Linear(3)]\n", "did you mean 'Linear'?"),
    ("44-combination", HEAD + "layers: [▲resdiual: [Tanh]]\n", "did you mean 'residual'?"),
    ("44-in-block", HEAD + "layers:\n- residual:\n  - ▲Lienar: {out_features: 6}\n", "'Linear'?"),
    ("44-nothing-near", HEAD + "layers: [▲Wavelet]\n", "unknown layer 'Wavelet'"),
    ("44-private", HEAD + "layers: [▲Module]\n", "unknown layer 'Module'"),
    ("44-dunder", HEAD + "layers: [▲__import__]\n", "unknown layer"),
    ("44-nothing", HEAD + "layers: [Tanh, ▲~]\n", "layer"),
    ("44-two-keys", HEAD + "layers:\n- ▲Linear: {out_features: 4}\n  bias: false\n", "one layer"),
    ("44-list", HEAD + "layers:\n- ▲[Tanh]\n", "one layer", "a list"),
    ("44-scalar-argument", HEAD + "layers: [Linear: ▲64]\n", "expected a mapping"),
    ("44-required", HEAD + "layers: [▲Linear: {bias: false}]\n", "'out_features' is missing"),
    ("44-no-layers", "▲input: {shape: [6]}\n", "no 'layers'"),
    ("44-no-input", "▲" + TAIL, "no 'input'"),
    ("44-no-shape", "input: ▲{tokens: 4}\n" + TAIL, "'shape' is missing"),
    ("44-no-reason", GOOD + "check: {ignore: [▲{rule: GP101}]}\n", "'reason' is missing"),
    ("44-empty-reason", GOOD + "check: {ignore: [{rule: GP101, reason: ▲''}]}\n", "reason"),
    ("44-names-twice", HEAD + "layers:\n- Tanh: {name: a}\n- ▲Tanh: {name: a}\n", "named 'a'"),
    ("44-name-with-dot", NAME % "a.b", "dot"),
    ("44-name-is-number", NAME % "'3'", "number"),
    ("44-name-is-empty", NAME % "''", "empty"),
    ("46-activations-only", HEAD + "layers:\n- ▲Tanh\n- Dropout\n", "no trainable parameters"),
    (
        "46-in-blocks",
        HEAD + "layers:\n- ▲repeat: {times: 3, layers: [residual: [ReLU]]}\n",
        "no tr",
    ),
    ("46-norm-without", HEAD + "layers:\n- ▲LayerNorm: {elementwise_affine: false}\n", "no train"),
)
def test_spec(probe: Run, file: Path, spec: str, words: tuple[str, ...]) -> None:
    refused(probe(spec), file, spec, *words)


IMAGE = "input: {shape: [3, 8, 8]}\n"
WORDS = "input: {shape: [5], tokens: 11}\n"
SEQUENCE = "input: {shape: [5, 6]}\n"


@cases(
    (
        "40-linear",
        HEAD
        + "layers:\n- Linear: {out_features: 5}\n- ▲Linear: {in_features: 6, out_features: 2}\n",
        "Linear: in_features is 6",
        "Linear (line 3) gives 5",
    ),
    (
        "40-first",
        HEAD + "layers:\n- ▲Linear: {in_features: 7, out_features: 2}\n",
        "in_features is 7",
        "the input gives 6",
    ),
    (
        "40-conv-norm",
        IMAGE
        + "layers:\n- Conv2d: {out_channels: 4, kernel_size: 3}\n- ReLU\n"
        + "- ▲BatchNorm2d: {num_features: 8}\n",
        "BatchNorm2d: num_features is 8",
        "ReLU (line 4) gives 4",
    ),
    (
        "40-attention",
        SEQUENCE + "layers:\n- LSTM: {hidden_size: 4}\n"
        "- ▲MultiheadAttention: {embed_dim: 6, num_heads: 2}\n",
        "MultiheadAttention: embed_dim is 6",
        "LSTM (line 3) gives 4",
    ),
    (
        "40-layer-norm",
        SEQUENCE + "layers:\n- Linear: {out_features: 3}\n- ▲LayerNorm: {normalized_shape: [6]}\n",
        "LayerNorm",
        "Linear (line 3)",
    ),
    (
        "40-inside-repeat",
        HEAD
        + "layers:\n- repeat:\n    times: 2\n    layers:\n"
        + "    - ▲Linear: {in_features: 6, out_features: 5}\n",
        "Linear: in_features is 6",
        "(line 6) gives 5",
    ),
    (
        "40-residual",
        HEAD
        + "layers:\n- Linear: {out_features: 5}\n"
        + "- ▲residual: [Tanh, Linear: {out_features: 7}]\n",
        "Linear ends in shape [7]",
        "the skip in shape [5]",
        "shortcut",
    ),
    (
        "40-shortcut",
        HEAD
        + "layers:\n- ▲residual: {layers: [Linear: {out_features: 7}], "
        + "shortcut: {Linear: {out_features: 8}}}\n",
        "shape [7]",
        "shape [8]",
    ),
    (
        "40-concat",
        IMAGE + "layers:\n- ▲concat: [[Conv2d: {out_channels: 2, kernel_size: 3}], []]\n",
        "[2, 6, 6]",
        "[3, 8, 8]",
    ),
    (
        "40-concat-dim",
        HEAD + "layers:\n- Linear: {out_features: 6}\n- ▲concat: {branches: [[], []], dim: 4}\n",
        "dim 4",
    ),
    (
        "40-kernel",
        IMAGE
        + "layers:\n- Conv2d: {out_channels: 4, kernel_size: 3}\n"
        + "- ▲Conv2d: {out_channels: 4, kernel_size: 7}\n",
        "Conv2d (line 3)",
    ),
    (
        "40-conv-on-vector",
        HEAD + "layers:\n- ▲Conv2d: {out_channels: 4, kernel_size: 3}\n",
        "Conv2d",
        "shape [6]",
    ),
    (
        "40-heads",
        SEQUENCE + "layers:\n- ▲MultiheadAttention: {num_heads: 4}\n",
        "MultiheadAttention",
        "divisible",
    ),
    (
        "40-groups",
        IMAGE + "layers:\n- ▲Conv2d: {out_channels: 4, kernel_size: 3, groups: 2}\n",
        "Conv2d",
        "divisible",
    ),
    ("40-float-embedding", HEAD + "layers:\n- ▲Embedding: {embedding_dim: 4}\n", "tokens"),
    ("40-token-linear", WORDS + "layers:\n- ▲Linear: {out_features: 4}\n", "tokens", "Embedding"),
    ("40-token-lstm", WORDS + "layers:\n- ▲LSTM: {hidden_size: 4}\n", "tokens"),
    (
        "40-token-residual",
        WORDS + "layers:\n- residual: [▲Linear: {out_features: 5}]\n",
        "tokens",
    ),
    (
        "40-vocabulary",
        WORDS + "layers:\n- ▲Embedding: {num_embeddings: 7, embedding_dim: 4}\n",
        "num_embeddings is 7",
        "11",
    ),
    ("40-attention-on-vector", HEAD + "layers:\n- ▲MultiheadAttention: {num_heads: 2}\n", "[6]"),
    ("40-lstm-on-vector", HEAD + "layers:\n- ▲LSTM: {hidden_size: 4}\n", "shape [6]"),
    (
        "40-encoder-on-vector",
        HEAD + "layers:\n- Tanh\n- ▲TransformerEncoderLayer: {nhead: 2}\n",
        "shape [6]",
    ),
    (
        "40-conv-on-batch",
        "input: {shape: [8, 8], batch_size: 8}\n"
        "layers:\n- ▲Conv2d: {out_channels: 4, kernel_size: 1}\n",
        "shape [8, 8]",
    ),
    ("40-softmax-dim", HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲Softmax: {dim: 3}\n", "3"),
    (
        "40-softmax-over-the-batch",
        HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲Softmax: {dim: 0}\n",
        "samples",
        "a dim of 1",
    ),
    (
        "40-softmax-over-the-batch-from-behind",
        HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲LogSoftmax: {dim: -2}\n",
        "samples",
    ),
    ("40-softmax-2d", SEQUENCE + "layers:\n- Linear: {out_features: 4}\n- ▲Softmax2d\n", "samples"),
    (
        "40-softmax-of-a-sequence",
        SEQUENCE + "layers:\n- Linear: {out_features: 4}\n- ▲Softmax\n",
        "samples",
    ),
    (
        "40-glu-over-the-batch",
        HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲GLU: {dim: 0}\n",
        "0",
    ),
    (
        "40-kernel-of-three",
        IMAGE + "layers:\n- ▲Conv2d: {out_channels: 4, kernel_size: [3, 3, 3]}\n",
        "Conv2d",
    ),
    (
        "40-output-padding",
        IMAGE
        + "layers:\n- ▲ConvTranspose2d: {out_channels: 2, kernel_size: 2, output_padding: 3}\n",
        "ConvTranspose2d",
    ),
    (
        "40-zero-alpha",
        HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲CELU: {alpha: 0}\n",
        "CELU",
    ),
    (
        "40-init-orthogonal-bias",
        HEAD + "layers:\n- Linear: {out_features: 4, init: {bias: ▲orthogonal}}\n",
        "orthogonal",
        "bias",
    ),
    (
        "40-init-mode",
        HEAD
        + "layers:\n- Linear: {out_features: 4, init: {weight: {▲kaiming_normal: {mode: fan}}}}\n",
        "fan",
    ),
    (
        "40-init-negative-std",
        GOOD + "init: {Linear: {weight: {▲normal: {std: -1}}}}\n",
        "std",
    ),
    (
        "40-zero-init-sigmoid",
        HEAD
        + "layers:\n- ▲residual:\n    zero_init: true\n"
        + "    layers: [Linear: {out_features: 6}, Sigmoid]\n",
        "Sigmoid(0) is not 0",
    ),
    (
        "40-zero-init-of-nothing",
        HEAD
        + "layers:\n- Linear: {out_features: 6}\n- ▲residual: {zero_init: true, layers: [Tanh]}\n",
        "no parameters",
    ),
    (
        "42-in-spec",
        "input: {shape: [6], batch_size: 1}\n"
        "layers:\n- Linear: {out_features: 4}\n- ▲BatchNorm1d\n",
        "one sample",
        "--batch-size",
    ),
    (
        "42-in-block",
        "input: {shape: [6], batch_size: 1}\nlayers:\n- residual: [▲BatchNorm1d, ReLU]\n",
        "one sample",
    ),
)
def test_shapes(probe: Run, file: Path, spec: str, words: tuple[str, ...]) -> None:
    refused(probe(spec), file, spec, *words)


@cases(
    ("40-gelu", HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲GELU: {approximate: x}\n"),
    ("40-celu", HEAD + "layers:\n- ▲CELU: {alpha: 0}\n- Linear: {out_features: 4}\n"),
    ("40-eps", HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲BatchNorm1d: {eps: -1}\n"),
    ("40-rrelu", HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲RReLU: {lower: 2, upper: 1}\n"),
    ("40-in-block", HEAD + "layers:\n- residual: [Linear: {out_features: 6}, ▲CELU: {alpha: 0}]\n"),
    (
        "40-beside-in-place",
        HEAD
        + "layers:\n- Linear: {out_features: 4}\n- ReLU: {inplace: true}\n- ▲CELU: {alpha: 0}\n",
    ),
)
@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_40_arguments_that_torch_refuses_at_run_time(
    probe: Run, file: Path, spec: str, words: tuple[str, ...], level: str
) -> None:
    """The line is known; the column may be that of the row's first layer."""
    result = probe(spec, "--level", level)
    clean(result)
    line = spec[: spec.index("▲")].count("\n") + 1
    assert result.err.startswith(f"{file}:{line}:")


@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_40_of_two_layers_on_one_line_the_caret_is_under_the_right_one(
    probe: Run, file: Path, level: str
) -> None:
    spec = HEAD + "layers: [Linear: {out_features: 4}, ▲GELU: {approximate: x}]\n"
    refused(probe(spec, "--level", level), file, spec, "row 1 (GELU)")


def test_42_batch_of_one_by_option_and_data(probe: Run, file: Path, tmp_path: Path) -> None:
    spec = HEAD + "layers:\n- Linear: {out_features: 4}\n- ▲BatchNorm1d\n"
    refused(probe(spec, "--batch-size", "1"), file, spec, "one sample")
    np.save(tmp_path / "one.npy", np.ones((1, 6), "f4"))
    refused(probe(spec, "--data", str(tmp_path / "one.npy")), file, spec, "one sample")
    assert probe(spec, "--batch-size", "2").code == 0


def test_42_batch_of_one_is_enough_where_a_channel_has_more_values(probe: Run) -> None:
    spec = IMAGE + "layers: [Conv2d: {out_channels: 2, kernel_size: 3}, BatchNorm2d]\n"
    assert probe(spec, "--batch-size", "1").code == 0


@pytest.fixture
def frugal() -> Iterator[None]:
    """At most 1 GiB more than now: who allocates first and asks later fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("frugal")
@cases(
    (
        "37-million-by-million",
        "input: {shape: [1000000]}\nlayers:\n- ▲Linear: {out_features: 1000000}\n",
        "3.6 TiB",
    ),
    (
        "37-inner-layer",
        HEAD
        + "layers:\n- Linear: {out_features: 300000}\n- ▲Linear: {out_features: 2000000}\n- Tanh\n",
        "need 2.2 TiB",
    ),
    (
        "37-largest-by-largest",
        HEAD
        + "layers:\n- Linear: {out_features: 2147483647}\n- ▲Linear: {out_features: 2147483647}",
        "iB",
    ),
    (
        "37-repeated",
        "input: {shape: [1000]}\nlayers:\n- ▲repeat:\n    times: 5000\n    layers:\n"
        "    - Linear: {out_features: 1000}\n",
        "GiB",
    ),
    (
        "37-embedding",
        "input: {shape: [6], tokens: 1000000}\nlayers:\n- ▲Embedding: {embedding_dim: 1000000}\n",
        "3.6 TiB",
    ),
    (
        "37-recurrent",
        "input: {shape: [3, 6]}\nlayers:\n- ▲LSTM: {hidden_size: 1000000}\n",
        "TiB",
    ),
    (
        "37-convolution",
        IMAGE + "layers:\n- ▲Conv2d: {out_channels: 100000, kernel_size: 3000, padding: 3000}\n",
        "TiB",
    ),
    ("37-input", "input: ▲{shape: [2147483647, 2147483647]}\n" + TAIL, "TiB"),
    ("37-batch", "input: ▲{shape: [60000], batch_size: 2000000}\n" + TAIL, "GiB"),
    (
        "37-batch-that-fits-without-its-outputs",
        "input: {shape: [60000], batch_size: 30000}\nlayers:\n- ▲Linear: {out_features: 60000}\n",
        "GiB",
    ),
    (
        "37-upsampled",
        IMAGE
        + "layers:\n- Conv2d: {out_channels: 2, kernel_size: 1}\n"
        + "- ▲Upsample: {scale_factor: 1e4}\n",
        "TiB",
    ),
    (
        "37-pooled-up",
        IMAGE + "layers:\n- Conv2d: {out_channels: 2, kernel_size: 1}\n"
        "- ▲AdaptiveAvgPool2d: {output_size: 1000000}\n",
        "TiB",
    ),
    (
        "37-padded",
        SEQUENCE + "layers:\n- Linear: {out_features: 4}\n- ▲ZeroPad1d: {padding: 2000000000}\n",
        "TiB",
    ),
    (
        "37-feed-forward-inside-a-layer",
        "input: {shape: [20000, 4]}\n"
        "layers:\n- ▲TransformerEncoderLayer: {nhead: 1, dim_feedforward: 500000}\n",
        "TiB",
    ),
    (
        "37-padding-inside-a-layer",
        "input: {shape: [3, 8, 8]}\n"
        "layers:\n- ▲LocalResponseNorm: {size: 100000000}\n"
        "- Flatten\n- Linear: {out_features: 2}\n",
        "iB",
    ),
    (
        "37-layers-inside-a-layer",
        "input: {shape: [100000, 4]}\nlayers:\n- ▲GRU: {hidden_size: 4, num_layers: 300}\n",
        "iB",
    ),
    (
        "37-mask-inside-a-layer",
        "input: {shape: [1000000, 4], batch_size: 1}\n"
        "layers:\n- ▲MultiheadAttention: {num_heads: 1, causal: true}\n",
        "iB",
    ),
)
def test_37_sizes(probe: Run, file: Path, spec: str, words: tuple[str, ...]) -> None:
    refused(probe(spec), file, spec, *words)


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--width", "1000000"), ("TiB", "--max-memory")),
        (("--width", "30000000"), ("TiB", "--max-memory")),
        (("--width", "2147483647"), ("GiB", "--max-memory")),
        (("--width", "3000", "--depth", "9999"), ("GiB", "--max-memory")),
        (("--batch-size", "1048576", "--width", "1500"), ("GiB", "--max-memory")),
        (("--max-memory", "100KiB"), ("KiB", "--max-memory")),
        (("--max-memory", "1KiB"), ("KiB", "--max-memory")),
        (("--max-parameters", "1000"), ("parameters", "--max-parameters is 1,000")),
        (("--depth", "50001"), ("50,000 layers",)),
        (("--depth", "2147483647"), ("50,000 layers",)),
    ],
    ids=lambda value: "".join(value) if value[0].startswith("--") else None,
)
def test_37_39_sizes_of_stacks(run: Run, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    for stack in ("plain", "residual"):
        told(run("probe", stack, *options), *words)


# ---- 47 to 49: numbers that JSON and float32 cannot hold

HUGE = "{out_features: 6, init: {weight: {normal: {std: 1e25}}}}"


def finite_json(text: str) -> Any:
    def constant(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=constant)


@pytest.mark.parametrize(
    ("layers", "maker"),
    [
        pytest.param(f"- Linear: {HUGE}\n- Linear: {HUGE}\n- Tanh\n- Linear: {HUGE}\n", "1"),
        pytest.param(
            f"- Linear: {{out_features: 6}}\n- repeat: {{times: 5, layers: [Linear: {HUGE}]}}\n",
            "1.1",
        ),
        pytest.param(
            f"- Linear: {{out_features: 6}}\n- Tanh\n- residual: [Linear: {HUGE}, Linear: {HUGE}]\n"
            "- Linear: {out_features: 3}\n",
            "2",
        ),
        pytest.param(
            f"- Linear: {HUGE}\n- sequential:\n    name: stage\n    layers: [Linear: {HUGE}]\n"
            "- Linear: {out_features: 3}\n",
            "stage",
        ),
    ],
    ids=["47-linear", "47-repeat", "47-residual", "47-named"],
)
def test_47_overflow(probe: Run, layers: str, maker: str) -> None:
    spec = HEAD + "layers:\n" + layers
    result = probe(spec, "--format", "json")
    assert result.code == 1
    assert result.err == ""
    report = finite_json(result.out)
    assert report["verdict"] == "non-finite"
    rows = {row["name"]: row for row in report["rows"]}
    assert rows[maker]["status"] == "non-finite"
    assert rows[maker]["activation_rms"] is None
    before = report["rows"][: list(rows).index(maker)]
    assert all(row["activation_rms"] is not None for row in before)
    [finding] = [f for f in report["findings"] if f["name"] == "non-finite"]
    assert (finding["row"], finding["severity"]) == (maker, "error")
    assert (finding["value"], finding["status"]) == (None, "non-finite")
    text = probe(spec)
    assert text.code == 1
    assert "non-finite" in text.out
    assert f"row {maker}" in text.out
    assert probe(spec, "--dtype", "float64", "--exit-zero").code == 0


def test_47_infinite_loss(probe: Run) -> None:
    spec = HEAD + f"layers: [Linear: {HUGE}]\nloss: mse\n"
    result = probe(spec, "--format", "json")
    assert result.code == 1
    report = finite_json(result.out)
    assert (report["verdict"], report["loss"]) == ("non-finite", None)
    assert report["rows"][0]["activation_rms"] > 1e20


@pytest.mark.parametrize("times", [8, 9, 10])
@pytest.mark.parametrize("std", [0.0008, 0.001])
def test_48_small_is_not_zero(probe: Run, times: int, std: float) -> None:
    """Squares of such gradients underflow in float32; the norms must not."""
    spec = (
        HEAD
        + "layers:\n- Linear: {out_features: 8}\n- repeat:\n"
        + f"    times: {times}\n    layers: [Linear: {{out_features: 8, bias: false, "
        + f"init: {{weight: {{normal: {{std: {std}}}}}}}}}]\n- Linear: {{out_features: 2}}\n"
    )
    single, double = (
        json.loads(probe(spec, "--dtype", dtype, "--format", "json").out)["rows"]
        for dtype in ("float32", "float64")
    )
    assert 1e-30 < double[0]["gradient_norm"] < 1e-20
    for row, exact in zip(single, double, strict=True):
        assert row["status"] == "ok"
        for key in ("gradient_norm", "reach", "weight_gradient_norm", "activation_rms"):
            assert row[key] == pytest.approx(exact[key], rel=1e-4, abs=0)


class Cut(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.second = torch.nn.Linear(4, 4)
        self.third = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x)).detach()
        out: torch.Tensor = self.head(self.third(x))
        return out


def test_49_no_gradient_is_not_a_vanishing_one() -> None:
    report = gradprobe.probe(Cut(), torch.randn(8, 4))
    assert report.verdict is gradprobe.Verdict.DISCONNECTED
    assert [row.status for row in report.rows[:2]] == ["no-gradient", "no-gradient"]
    assert [row.gradient_norm for row in report.rows[:2]] == [None, None]
    names = {finding.name for finding in report.findings}
    assert "disconnected" in names
    assert not names & {"vanishing", "dead", "weak"}


# ---- 57 to 62: data files, targets, standard input


class Evil:
    """Unpickled, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "name", "a.pt a.pth a.pkl a.pickle a.bin a.npy a.npz a.safetensors a.ckpt a.yaml a".split()
)
def test_57_a_pickle_is_refused_and_never_read(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    evil = tmp_path / name
    evil.write_bytes(pickle.dumps(Evil(tmp_path / "pwned")))
    results = [
        run("probe", str(tmp_path / "good.yaml"), "--data", str(evil)),
        run("probe", str(evil)),
    ]
    assert not (tmp_path / "pwned").exists()
    told(results[0], name)
    clean(results[1])
    for unsafe in ("allow_pickle", "weights_only"):  # no advice to read it after all
        assert unsafe not in results[0].err
    if name.endswith((".pt", ".pth", ".pkl")):
        assert "safetensors" in results[0].err


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_57_an_array_of_objects_is_refused(probe: Run, tmp_path: Path, suffix: str) -> None:
    evil = tmp_path / f"x{suffix}"
    array = np.array([Evil(tmp_path / "pwned")], dtype=object)
    with evil.open("wb") as stream:
        (np.save if suffix == ".npy" else np.savez)(stream, array)
    result = probe(GOOD, "--data", str(evil))
    assert not (tmp_path / "pwned").exists()
    told(result, f"x{suffix}")
    assert "allow_pickle" not in result.err


def header(body: bytes) -> bytes:
    return struct.pack("<Q", len(body)) + body


def tensor(**fields: Any) -> bytes:
    return header(json.dumps({"x": {"dtype": "F32", "shape": [2, 6], **fields}}).encode())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack("<Q", 2**40) + b"{}", id="header-of-2^40"),
        pytest.param(struct.pack("<Q", 2**64 - 1) + b"{}", id="header-of-2^64"),
        pytest.param(struct.pack("<Q", 0), id="header-of-0"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\1\2\3", id="three-bytes"),
        pytest.param(header(b"{not json}"), id="not-json"),
        pytest.param(header(b"[" * 10_000), id="nested-json"),
        pytest.param(header(b"\xff\xfe{}"), id="not-utf-8"),
        pytest.param(tensor(data_offsets=[0, 2**50]) + bytes(48), id="offset-behind-the-end"),
        pytest.param(tensor(data_offsets=[48, 0]) + bytes(48), id="offsets-reversed"),
        pytest.param(tensor(shape=[2**40, 2**40], data_offsets=[0, 48]) + bytes(48), id="shape"),
        pytest.param(tensor(dtype="F99", data_offsets=[0, 48]) + bytes(48), id="dtype"),
        pytest.param(tensor(data_offsets=[0, 48]) + bytes(40), id="cut-short"),
        pytest.param(GOOD.encode(), id="a-spec"),
    ],
)
def test_59_safetensors(probe: Run, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    told(probe(GOOD, "--data", str(tmp_path / "x.safetensors")), "x.safetensors")


def npy(description: str) -> bytes:
    text = description.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npy_of(shape: str, dtype: str = "<f4") -> bytes:
    return npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}") + bytes(64)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93NUMPY", id="magic-only"),
        pytest.param(npy_of("(8, 6)"), id="cut-short"),
        pytest.param(npy_of(f"({2**40}, 6)"), id="claims-26-TiB"),
        pytest.param(npy_of("(-8, 6)"), id="negative-shape"),
        pytest.param(npy_of("'x'"), id="shape-is-a-word"),
        pytest.param(npy_of("(2, 6)", "|O"), id="objects"),
        pytest.param(npy("__import__('os').mkdir('pwned')"), id="code-for-header"),
        pytest.param(npy("(" * 4000), id="nested-header"),
        pytest.param(b"1,2,3,4,5,6\n", id="comma-separated"),
    ],
)
def test_59_npy(probe: Run, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    told(probe(GOOD, "--data", str(tmp_path / "x.npy")), "x.npy")


ROWS = np.linspace(-1, 1, 48, dtype="f4").reshape(8, 6)
LABELS = np.arange(8) % 4


@pytest.mark.parametrize(
    ("arrays", "spec", "words"),
    [
        pytest.param({"x": ROWS[:, :5]}, GOOD, ("[5]", "[6]"), id="wrong-width"),
        pytest.param({"x": ROWS[0]}, GOOD, ("[]", "[6]"), id="one-sample-without-batch"),
        pytest.param({"x": ROWS[:0]}, GOOD, ("no samples",), id="no-samples"),
        pytest.param({"x": np.float32(3)}, GOOD, ("[6]",), id="a-scalar"),
        pytest.param({"x": ROWS + np.where(np.arange(6) == 4, np.nan, 0)}, GOOD, ("sample 0",),
                     id="nan"),
        pytest.param({"x": np.copysign(np.inf, ROWS)}, GOOD, ("infinity",), id="infinity"),
        pytest.param({"x": ROWS.astype("c8")}, GOOD, ("complex",), id="complex"),
        pytest.param({"x": ROWS.astype("U")}, GOOD, ("x.npz",), id="strings"),
        pytest.param({"x": ROWS.astype("i8").astype("M8[s]")}, GOOD, ("x.npz",), id="dates"),
        pytest.param({"a": ROWS, "b": ROWS}, GOOD, ("inputs", "a, b"), id="which-array"),
        pytest.param({}, GOOD, ("x.npz",), id="no-array"),
        pytest.param({"x": ROWS, "y": LABELS[:5]}, GOOD, ("label",), id="too-few-labels"),
        pytest.param({"x": ROWS, "y": LABELS + 1}, GOOD + "loss: cross_entropy\n", ("4 classes",),
                     id="label-out-of-range"),
        pytest.param({"x": ROWS, "y": -LABELS}, GOOD + "loss: cross_entropy\n", ("4 classes",),
                     id="label-negative"),
        pytest.param({"x": ROWS, "y": LABELS / 2}, GOOD + "loss: cross_entropy\n", ("integer",),
                     id="label-float"),
        pytest.param({"x": ROWS, "y": ROWS}, GOOD + "loss: mse\n", ("[4]", "[6]"), id="target"),
        pytest.param({"x": ROWS}, WORDS.replace("[5]", "[6]") + "layers: [Embedding: "
                     "{embedding_dim: 3}]\n", ("integer",), id="float-tokens"),
        pytest.param({"x": (ROWS > 0) * 11}, WORDS.replace("[5]", "[6]") + "layers: [Embedding: "
                     "{embedding_dim: 3}]\n", ("11", "10"), id="token-too-large"),
        pytest.param({"x": ((ROWS > 0) * 11).astype("u2")}, WORDS.replace("[5]", "[6]") + "layers: "
                     "[Embedding: {embedding_dim: 3}]\n", ("11", "10"), id="token-uint16"),
        pytest.param({"x": (ROWS > 0) * -1}, WORDS.replace("[5]", "[6]") + "layers: [Embedding: "
                     "{embedding_dim: 3}]\n", ("-1",), id="token-negative"),
    ],
)  # fmt: skip
def test_59_arrays_that_do_not_fit(
    probe: Run, tmp_path: Path, arrays: dict[str, Any], spec: str, words: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    told(probe(spec, "--data", str(tmp_path / "x.npz")), *words)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="cut-short"),
        pytest.param(lambda data: b"PK\3\4" + data[50:], id="header"),
        pytest.param(lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:], id="crc"),
        pytest.param(lambda data: b"", id="empty"),
    ],
)
def test_59_npz(probe: Run, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=ROWS)
    path.write_bytes(damage(path.read_bytes()))
    told(probe(GOOD, "--data", str(path)), "x.npz")


def test_59_a_zip_bomb_is_refused_by_its_size(probe: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_of("(8, 6)") + bytes(100 * 2**20))
    assert path.stat().st_size < 2**20
    told(probe(GOOD, "--data", str(path), "--max-memory", "64MiB"), "x.npz", "--max-memory")


def test_59_good_files_are_read(probe: Run, tmp_path: Path) -> None:
    """So that the cases above fail for the reason that they say."""
    np.save(tmp_path / "x.npy", ROWS)
    np.savez(tmp_path / "x.npz", x=ROWS, y=LABELS)
    save_file({"x": torch.from_numpy(ROWS.copy())}, tmp_path / "x.safetensors")
    for name in ("x.npy", "x.npz", "x.safetensors"):
        assert probe(GOOD, "--data", str(tmp_path / name)).code == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        pytest.param("net.yml", ("net.yml", "did you mean 'net.yaml'?"), id="60-near"),
        pytest.param("nothing", ("nothing",), id="60-missing"),
        pytest.param("far.yaml", ("directory\n",), id="60-nothing-near"),
        pytest.param("nowhere/net.yaml", ("nowhere/net.yaml",), id="60-missing-directory"),
        pytest.param("net.yaml/net.yaml", ("net.yaml/net.yaml",), id="60-file-for-directory"),
        pytest.param("*.json", ("*.json",), id="60-glob-of-nothing"),
        pytest.param("specs/**/*.yaml", ("specs/**/*.yaml",), id="60-deep-glob-of-nothing"),
        pytest.param("dangling.yaml", ("dangling.yaml",), id="60-dangling-link"),
        pytest.param("loop.yaml", ("loop.yaml",), id="60-loop-of-links"),
        pytest.param("", ("empty",), id="60-empty-name"),
        pytest.param(".", ("directory",), id="60-directory"),
        pytest.param("x" * 5000, ("xxx",), id="60-long-name"),
        pytest.param("a\0b", (r"a\x00b",), id="60-nul"),
        pytest.param("\x1b[31m.yaml", (r"\x1b[31m.yaml",), id="60-escape"),
        pytest.param("\udcff.yaml", (r"\udcff.yaml",), id="60-not-utf-8"),
        pytest.param("plian", ("plian", "did you mean 'plain'?"), id="60-stack"),
    ],
)
@pytest.mark.parametrize("command", ["probe", "compare"])
def test_60_targets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, target: str,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(GOOD)
    Path("dangling.yaml").symlink_to("gone.yaml")
    Path("loop.yaml").symlink_to("loop.yaml")
    told(run(command, target), *words)
    if command == "compare":
        told(run(command, "net.yaml", target), *words)
        told(run(command, target, "plain"), *words)


@pytest.mark.parametrize("name", ["gone.npy", "gone.npz", "gone.safetensors", "x/y.npy", "d.npy"])
def test_60_data(probe: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "d.npy").mkdir()
    told(probe(GOOD, "--data", str(tmp_path / name)), name)


class Endless(io.RawIOBase):
    """Zeros without end, and how many of them were read."""

    count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.count += len(buffer)
        buffer[:] = b"#" * len(buffer)
        return len(buffer)


def give(monkeypatch: pytest.MonkeyPatch, stream: io.RawIOBase | io.BytesIO) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param("▲", ("empty",), id="62-no-bytes"),
        pytest.param("▲\n\n", ("empty",), id="62-blank"),
        pytest.param(HEAD + "layers: [▲Rleu]\n", ("ReLU",), id="62-spec"),
    ],
)
def test_62_standard_input(
    run: Run, monkeypatch: pytest.MonkeyPatch, spec: str, words: tuple[str, ...]
) -> None:
    for command in ("probe", "compare"):
        give(monkeypatch, io.BytesIO(spec.replace("▲", "").encode()))
        refused(run(command, "-"), "<stdin>", spec, *words)


def test_62_endless_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Endless()
    give(monkeypatch, endless)
    result = run("probe", "-")
    clean(result)
    assert "too large" in result.err
    assert endless.count < 2**21


@pytest.mark.parametrize("targets", [("-", "-"), ("-", "plain", "-"), ("plain", "-", "-", "-")])
def test_62_standard_input_twice(
    run: Run, monkeypatch: pytest.MonkeyPatch, targets: tuple[str, ...]
) -> None:
    give(monkeypatch, io.BytesIO(GOOD.encode()))
    told(run("compare", *targets), "standard input", "once")


# ---- options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--depth", "0"), ("--depth", "0", "range")),
        (("--depth", "-4"), ("--depth", "-4", "range")),
        (("--depth", "2.5"), ("--depth",)),
        (("--depth", "ten"), ("'--depth': should be a valid integer\n",)),
        (("--depth", str(10**30)), ("--depth", "range")),
        (("--depth", "9" * 5000), ("--depth",)),
        (("--depth",), ("--depth",)),
        (("--width", "0"), ("--width", "range")),
        (("--width", str(10**12)), ("--width", "range")),
        (("--width", str(2**63)), ("--width", "range")),
        (("--activation", "rleu"), ("--activation", "did you mean 'relu'?")),
        (("--activation", ""), ("--activation",)),
        (("--activation", "Linear"), ("--activation",)),
        (("--init", "kaimin_normal"), ("--init", "did you mean 'kaiming_normal'?")),
        (("--init", ""), ("--init",)),
        (("--init", "{normal: {sdt: 1}}"), ("--init", "did you mean 'std'?")),
        (("--init", "constant"), ("--init", "'val' is missing")),
        (("--init", "[zeros"), ("--init", "not closed")),
        (("--init", "!!python/name:os.system x"), ("--init", "tag")),
        (("--init", "x\x1b[31m"), ("--init",)),
        (("--norm", "bach"), ("--norm", "batch")),
        (("--zero-init",), ("--zero-init",)),
        (("--seed", "-1"), ("--seed", "range")),
        (("--seed", str(2**63)), ("--seed", "range")),
        (("--seed", "x"), ("--seed",)),
        (("--batch-size", "0"), ("--batch-size", "range")),
        (("--batch-size", "-3"), ("--batch-size", "range")),
        (("--batch-size", str(2**40)), ("--batch-size", "range")),
        (("--dtype", "float16"), ("--dtype", "float32")),
        (("--device", "gpu"), ("--device", "cuda")),
        (("--device", ""), ("--device",)),
        (("--device", "cpu:x"), ("--device",)),
        (("--device", "meta"), ("--device", "meta")),
        (("--device", "xla"), ("--device", "xla")),
        (("--device", "mkldnn"), ("--device", "mkldnn")),
        (("--device", "cuda:77"), ("--device", "cuda:77")),
        (("--loss", "crossentropy"), ("--loss", "cross_entropy")),
        (("--level", "leafs"), ("'--level': 'leafs' is not one of", "leaves")),
        (("--data", "x.csv"), ("x.csv", ".npy")),
        (("--data", ""), ("--data",)),
        (("--max-parameters", "-1"), ("--max-parameters",)),
        (("--max-parameters", "1e9"), ("--max-parameters",)),
        (("--max-memory", "lots"), ("--max-memory", "'lots'", "4GiB")),
        (("--max-memory", "-1GiB"), ("--max-memory",)),
        (("--max-memory", "0"), ("--max-memory",)),
        (("--max-memory", ""), ("--max-memory",)),
        (("--max-memory", "4 PiB"), ("--max-memory",)),
        (("--format", "yaml"), ("--format", "json")),
        (("--color", "blue"), ("--color", "always")),
        (("--fail-on", "never"), ("--fail-on", "error")),
        (("--dpeth", "3"), ("--dpeth", "--depth")),
        (("extra",), ("extra",)),
        (("-o", ""), ("-o",)),
    ],
    ids=lambda value: "=".join(word[:20] for word in value) if value[0][:1] == "-" else None,
)
@pytest.mark.filterwarnings("default")  # as outside of pytest: what torch warns of is noise
def test_options(run: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    misused(run("probe", "plain", *arguments), *words)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("prob", "plain"),
        ("probe",),
        ("compare",),
        ("--nonsense",),
        ("rules", "GP999"),
        ("rules", ""),
        ("schema", "x"),
        ("probe", "plain", "residual"),
        ("--depth", "3", "probe"),
        ("probe", "plain", "--depth"),
    ],
    ids=lambda value: "-".join(value) or "nothing",
)
def test_usage(run: Run, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    clean(ended)
    assert ended.err.startswith("gradprobe: error: " if arguments else "Usage: gradprobe ")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "layers",
    [
        "Flatten, Linear: {out_features: 4}, Softmax",
        "LSTM: {hidden_size: 4, dropout: 0.5}",
        "LSTM: {hidden_size: 4, proj_size: 2}",
        "Conv1d: {out_channels: 4, kernel_size: 2, padding: same}",
        "Linear: {out_features: 4}, Dropout2d",
    ],
)
def test_a_warning_of_torch_is_not_passed_on(probe: Run, layers: str) -> None:
    result = probe(SEQUENCE + f"layers: [{layers}]\n")
    assert result.code == 0
    assert result.err == ""
