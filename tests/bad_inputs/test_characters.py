"""Bytes that are no UTF-8, and characters that may not reach a terminal as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.bad_inputs import GOOD, HEAD, RAW, TAIL, WIDTH, cases, clean, refused
from helpers.commands import Run


@pytest.mark.parametrize(
    ("before", "bad", "words"),
    [
        pytest.param(HEAD + "name: a", b"\0b\n", ("U+0000", "offset 27"), id="control-nul"),
        pytest.param("", b"\0", ("U+0000", "offset 0"), id="control-nul-first"),
        pytest.param("name: 'a", b"\x1b[31m'\n", ("U+001B", "offset 8"), id="control-raw-escape"),
        pytest.param(
            HEAD + "# be", b"\x07ll\n", ("U+0007", "offset 24"), id="control-bell-in-comment"
        ),
        pytest.param("name: é", b"\x7f\n", ("U+007F", "offset 8"), id="control-delete"),
        pytest.param("name: é", b"\xc2\x9b\n", ("U+009B", "offset 8"), id="control-c1-control"),
        pytest.param("name: caf", b"\xe9\n", ("UTF-8", "0xe9", "offset 9"), id="not-utf-8-latin-1"),
        pytest.param(
            "# ü\nname: na", b"\xefve\n", ("UTF-8", "offset 13"), id="not-utf-8-latin-1-later"
        ),
        pytest.param("# é", b"\xc3", ("UTF-8", "offset 4"), id="not-utf-8-cut-short"),
        pytest.param("name: ", b"\xed\xa0\x80\n", ("UTF-8", "offset 6"), id="not-utf-8-surrogate"),
        pytest.param("name: ", b"\xc0\xaf\n", ("UTF-8", "offset 6"), id="not-utf-8-overlong"),
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
def test_other_unicode_encodings(probe: Run, file: Path, encoding: str) -> None:
    result = probe(GOOD.encode(encoding))
    clean(result)
    assert result.err.startswith(f"{file}:1:")
    assert "UTF-8" in result.err or "U+0000" in result.err


def test_a_byte_order_mark_is_allowed(probe: Run) -> None:
    assert probe(GOOD.encode("utf-8-sig")).code == 0
    result = probe(b"\xef\xbb\xbf")
    clean(result)
    assert "empty" in result.err


NASTY = [
    pytest.param('"a\\e[31mred\\e[0m"', r"a\x1b[31mred\x1b[0m", id="strange-ansi"),
    pytest.param('"\\u202Ereversed"', r"\u202ereversed", id="strange-bidi-escape"),
    pytest.param('"left \u202eright"', r"left \u202eright", id="strange-bidi-raw"),
    pytest.param('"zero\u200bwidth"', r"zero\u200bwidth", id="strange-zero-width"),
    pytest.param('"two\\nlines\\tand\\0nul"', r"two\nlines\tand\x00nul", id="strange-controls"),
    pytest.param('"\\uD800"', r"\ud800", id="strange-surrogate"),
    pytest.param('"bell\\a \\x9b"', r"bell\x07 \x9b", id="strange-bell-and-csi"),
]


@pytest.mark.parametrize(("name", "shown"), NASTY)
@pytest.mark.parametrize("options", [(), ("--color", "always"), ("--level", "leaves")])
def test_names_are_printed_escaped(
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
def test_json_is_ascii(probe: Run, name: str, shown: str) -> None:
    spec = f"{HEAD}layers: [Linear: {{out_features: 4, name: {name}}}]\n"
    result = probe(spec, "--format", "json")
    assert result.code == 0, result.err
    assert result.out.isascii()
    assert not RAW.search(result.out)
    json.loads(result.out)


@pytest.mark.parametrize(("name", "shown"), NASTY)
def test_emitted_specs_are_printed_escaped(
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
    ("strange-key", HEAD + TAIL + '▲"a\\e[31m": 1\n', r"a\x1b[31m"),
    ("strange-key-surrogate", '▲"\\uDFFF": 1\n' + GOOD, r"\udfff"),
    ("strange-layer", HEAD + 'layers: [▲"Re\\u202elu"]\n', r"Re\u202elu"),
    ("strange-scalar", WIDTH % '"\\e[2J"', r"\x1b[2J"),
    ("strange-raw-bidi-in-the-line", HEAD + "layers: [▲'\u202eReLU']\n", r"\u202eReLU"),
    ("strange-newline", HEAD + 'loss: ▲"m\\nse"\n' + TAIL, r"m\nse"),
    ("strange-alias", HEAD + "layers: [▲*a-b]\n", "a-b"),
    ("strange-megabyte-word", HEAD + "layers: [▲" + "Linear" * 100_000 + "]\n", "unknown layer"),
    ("strange-megabyte-key", GOOD + "▲? " + "k" * 500_000 + "\n: 1\n", "unknown key"),
    ("strange-megabyte-string", GOOD + "loss: ▲'" + "k" * 500_000 + "'\n", "loss"),
    ("strange-wide-characters", HEAD + "layers: [Linear: {name: 日本語の層, ▲out_feature: 4}]\n"),
    ("strange-far-to-the-right", HEAD + "layers: [" + "Tanh, " * 40 + "▲Rleu]\n", "ReLU"),
)
def test_messages_about_strange_words(
    probe: Run, file: Path, spec: str, words: tuple[str, ...]
) -> None:
    refused(probe(spec), file, spec.replace("▲? ", "? ▲"), *words)


MARKUP = ["layers[attn]", "[bold red]x[/]", "[/]", ":smile:", "a\\[b]", "{x}", "%s", "link=x"]


@pytest.mark.parametrize("name", MARKUP)
@pytest.mark.parametrize("color", ["never", "always"])
def test_names_are_printed_verbatim(probe: Run, name: str, color: str) -> None:
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
def test_names_that_torch_uses_itself(probe: Run, file: Path, name: str, layers: str) -> None:
    """A layer's name becomes a module's attribute: it works, or it is refused at its place."""
    spec = HEAD + "layers:\n" + layers % name + "\n"
    result = probe(spec)
    if result.code == 0:
        assert result.err == ""
    else:
        refused(result, file, spec, f"'{name}'")
