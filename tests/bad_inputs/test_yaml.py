"""YAML that is not a spec: empty, not closed, in itself, too deep, too large, with tags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.bad_inputs import GOOD, HEAD, LEAKY, TAIL, WIDTH, cases, clean, refused
from helpers.commands import Run


@cases(
    ("empty-no-bytes", "▲", "empty"),
    ("empty-blank-lines", "▲\n\n   \n", "empty"),
    ("empty-comment-only", "▲# nothing here\n# nor here\n", "empty"),
    ("empty-marker-only", "▲---\n", "empty"),
    ("empty-marker-and-comment", "▲--- # soon\n...\n", "empty"),
    ("top-is-list", "▲- input\n- layers\n", "expected a mapping"),
    ("top-is-list-behind-comment", "# a spec\n\n▲- Tanh\n", "expected a mapping"),
    ("top-is-flow-list", "▲[Linear, Tanh]\n", "expected a mapping"),
    ("top-is-word", "▲residual\n", "expected a mapping"),
    ("top-is-number", "▲17\n", "expected a mapping"),
    ("top-is-string", '▲"input: {shape: [4]}"\n', "expected a mapping"),
    ("two-documents", GOOD + "▲---\n" + GOOD, "second document"),
    ("second-is-empty", "---\n" + GOOD + "▲---\n", "second document"),
    ("three-documents", "# one\n---\n" + GOOD + "...\n▲---\nloss: mse\n---\n", "second document"),
    ("tab-indents-key", "input:\n▲\tshape: [6]\n" + TAIL, "tab", "spaces"),
    ("tab-indents-item", HEAD + "layers:\n▲\t- Tanh\n", "tab"),
    ("tab-behind-spaces", HEAD + "layers:\n  ▲\t- Tanh\n", "tab"),
    ("unclosed-bracket", HEAD + "layers: ▲[Linear: {out_features: 3}\n", "not closed"),
    ("unclosed-brace", "input: ▲{shape: [6]\n" + TAIL, "not closed"),
    ("unclosed-inner-bracket", HEAD + "layers: [Tanh, residual: ▲[Linear, Tanh\n", "not closed"),
    ("unclosed-wrong-closer", "input: {shape: ▲[6}}\n" + TAIL, "not closed"),
    (
        "unclosed-bracket-over-lines",
        HEAD + "layers: ▲[\n  Tanh,\n  ReLU\nloss: mse\n",
        "not closed",
    ),
    ("unclosed-double-quote", 'name: ▲"a net\n' + GOOD, "not closed"),
    ("unclosed-single-quote", "name: ▲'it''s a net\n" + GOOD, "not closed"),
    ("alias-undefined", HEAD + "layers: ▲*body\n", "undefined alias", "body"),
    ("alias-undefined-item", HEAD + "layers:\n  - Tanh\n  - residual: [▲*f]\n", "undefined alias"),
    ("alias-used-before", HEAD + "layers: [▲*l, &l Tanh]\n", "undefined alias"),
    ("alias-megabyte-name", HEAD + "layers: ▲*" + "a" * 10**6 + "\n", "undefined alias"),
    ("twice-top", HEAD + "layers: [Tanh]\n▲layers: [ReLU]\n", "line 2", "line 3"),
    ("twice-flow", "input: {shape: [6], ▲shape: [7]}\n" + TAIL, "'shape'", "line 1"),
    (
        "twice-in-layer",
        HEAD + "layers:\n  - repeat:\n      times: 2\n      layers: [Tanh]\n      ▲times: 9\n",
        "'times'",
        "line 4",
        "line 6",
    ),
    (
        "twice-quoted-and-plain",
        HEAD + "layers:\n  - Linear:\n      bias: true\n      ▲'bias': false\n",
        "'bias'",
        "line 4",
        "line 5",
    ),
    ("merge", "input: {▲<<: {shape: [6]}}\n" + TAIL, "merge"),
    (
        "merge-alias",
        HEAD + "layers:\n  - Linear: &b {out_features: 3}\n  - Linear:\n      ▲<<: *b\n",
        "merge",
    ),
    (
        "merge-list",
        HEAD + "check:\n  thresholds: &t {vanishing: 1e-5}\n  ▲<<: [*t, *t]\n" + TAIL,
        "merge",
    ),
    ("list-in-itself", HEAD + "layers: &a [▲*a]\n", "contains itself"),
    ("mapping-in-itself", "input: &i {shape: ▲*i}\n" + TAIL, "contains itself"),
    (
        "deep-in-itself",
        HEAD + "layers: &a\n  - Tanh\n  - residual: [{sequential: [ReLU, ▲*a]}]\n",
        "contains itself",
    ),
    ("deep-brackets", "[" * 64 + "▲[" + "[" * 435 + "]" * 500, "deep"),
    ("deep-brackets-unclosed", "[" * 64 + "▲" + "[" * 49_936, "deep"),
    ("deep-braces", "{a: " * 64 + "▲" + "{a: " * 300 + "1" + "}" * 364, "deep"),
    (
        "deep-residuals",
        HEAD + "layers: " + "[residual: " * 31 + "[▲residual: " + "[residual: " * 500,
        "deep",
    ),
    ("tag-python-apply", "name: ▲!!python/object/apply:os.system [ls]\n" + GOOD, "unsupported tag"),
    ("tag-python-name", HEAD + "layers: [▲!!python/name:os.getcwd '']\n", "unsupported tag"),
    ("tag-python-module", "input: ▲!!python/module:os\n" + TAIL, "unsupported tag"),
    ("tag-python-root", "--- ▲!!python/object:builtins.dict\n" + GOOD, "unsupported tag"),
    ("tag-include", "input: ▲!include /etc/passwd\n" + TAIL, "unsupported tag '!include'"),
    ("tag-env", "name: ▲!ENV ${HOME}\n" + GOOD, "unsupported tag '!ENV'"),
    ("tag-bool", "name: ▲!!bool m\n" + GOOD, "unsupported tag '!!bool'"),
    ("tag-int", "name: ▲!!int\n" + GOOD, "unsupported tag '!!int'"),
    ("tag-float", LEAKY % "!!float 'x'", "unsupported tag '!!float'"),
    ("tag-binary", "name: ▲!!binary aGk\n" + GOOD, "unsupported tag"),
    ("tag-set", "input: ▲!!set {shape}\n" + TAIL, "unsupported tag"),
    ("tag-key", "▲!!str input: {shape: [6]}\n" + TAIL, "unsupported tag"),
    ("tag-bare", HEAD + "layers: ▲! [Tanh]\n", "unsupported tag"),
    ("tag-verbatim", WIDTH % "!<tag:yaml.org,2002:int> 3", "unsupported tag"),
    ("tag-own-handle", "%TAG ! tag:me,2024:\n---\nname: ▲!x y\n" + GOOD, "unsupported tag"),
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
        pytest.param(bomb("Tanh", 9, 9), "too large", id="alias-bomb-lists-of-nine"),
        pytest.param(
            bomb("Linear: {out_features: 4}", 30, 2), "too large", id="alias-bomb-lists-of-two"
        ),
        pytest.param(bomb("{}", 5, 12), "too large", id="alias-bomb-lists-of-mappings"),
        pytest.param(merges(12), "", id="merge-bomb"),
        pytest.param(staircase(12, 25, "sequential"), "deep", id="deep-through-aliases"),
        pytest.param(staircase(30, 10, "residual"), "deep", id="deep-residuals-through-aliases"),
        pytest.param(HEAD + "layers:\n" + "- Tanh\n" * 410_000, "too large", id="large-megabytes"),
        pytest.param(HEAD + TAIL + "# " + "x" * 2**20, "too large", id="large-comment"),
        pytest.param(HEAD + "layers:\n" + "- Tanh\n" * 20_001, "too large", id="large-nodes"),
        pytest.param("input: {shape: [" + "1," * 30_000 + "]}", "too large", id="large-dimensions"),
    ],
)
def test_expansion(probe: Run, file: Path, spec: str, word: str) -> None:
    result = probe(spec)
    clean(result)
    assert re.match(re.escape(str(file)) + r":\d+:\d+: error: ", result.err)
    assert word in result.err


def test_size_is_refused_before_parsing(probe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yaml.SafeLoader", None)
    result = probe(b"layers: [" + b"Tanh, " * 600_000)
    clean(result)
    assert "1 MiB" in result.err
