"""Scalars of a wrong kind: dates, endless digits, words for booleans, octals, infinities."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bad_inputs import BIAS, GOOD, HEAD, LEAKY, NAME, TAIL, WIDTH, cases, refused
from helpers.commands import Run

from gradprobe.spec.network import NetworkSpec


@cases(
    ("month-13-as-width", WIDTH % "2024-13-45", "expected an integer"),
    ("date-as-width", WIDTH % "2024-12-24", "expected an integer"),
    ("timestamp-as-number", LEAKY % "2001-12-14t21:59:43.10-05:00", "expected a number"),
    ("date-as-shape", "input: {shape: [3, ▲1999-99-99]}\n" + TAIL, "expected an integer"),
    ("date-as-name", "name: ▲2024-02-31\n" + GOOD, "expected a string", "'2024-02-31'"),
    ("date-as-list", HEAD + "layers: ▲2024-02-03\n", "expected a list"),
    ("digits-as-width", WIDTH % ("7" * 4301), "out of range"),
    ("negative-digits", WIDTH % ("-" + "1" * 5000), "out of range"),
    ("digits-as-times", HEAD + "layers: [repeat: {times: ▲%s, layers: [Tanh]}]" % ("9" * 9999)),
    ("digits-as-shape", "input: {shape: [▲%s]}\n" % ("1" * 4301) + TAIL, "out of range"),
    ("digits-as-number", LEAKY % ("3" * 4301), "must be finite"),
    ("digits-as-name", "name: ▲%s\n" % ("3" * 4301) + GOOD, "expected a string"),
    ("boolean-yes", BIAS % "yes", "expected true or false", "'yes'"),
    ("boolean-no", BIAS % "no", "expected true or false"),
    ("boolean-off", BIAS % "off", "expected true or false"),
    ("boolean-capital", BIAS % "True", "expected true or false"),
    ("boolean-quoted", BIAS % "'true'", "expected true or false"),
    ("boolean-one", BIAS % "1", "expected true or false"),
    ("boolean-null", BIAS % "null", "expected true or false"),
    (
        "boolean-zero-init",
        HEAD + "layers:\n- residual: {layers: [Tanh], zero_init: ▲on}\n",
        "true or",
    ),
    ("boolean-name-on", NAME % "on", "expected a string", "quote it"),
    ("boolean-name-no", NAME % "NO", "expected a string", "quote it"),
    ("boolean-name-null", NAME % "~", "expected a string", "quote it"),
    ("boolean-name-number", NAME % "1.5", "expected a string", "quote it"),
    ("boolean-loss-off", GOOD + "loss: ▲off\n", "expected a string"),
    (
        "boolean-string-argument",
        HEAD + "layers: [GELU: {approximate: ▲yes}]\n",
        "expected a string",
    ),
    ("octal", WIDTH % "017", "ambiguous"),
    ("eight", WIDTH % "08", "ambiguous"),
    ("signed-octal", WIDTH % "+012", "ambiguous"),
    ("hexadecimal", WIDTH % "0x1F", "ambiguous"),
    ("binary", WIDTH % "0b101", "ambiguous"),
    ("new-octal", WIDTH % "0o17", "ambiguous"),
    ("underscore", WIDTH % "1_000", "ambiguous"),
    ("sexagesimal", WIDTH % "1:30", "expected an integer"),
    ("octal-shape", "input: {shape: [▲010]}\n" + TAIL, "ambiguous"),
    ("octal-number", LEAKY % "017", "ambiguous"),
    ("eight-number", LEAKY % "-08", "ambiguous"),
    ("hexadecimal-number", LEAKY % "0x1F", "number"),
    ("sexagesimal-number", LEAKY % "1:30", "expected a number"),
    ("underscore-number", LEAKY % "1_0.5", "number"),
    ("not-finite-nan", LEAKY % ".nan", "must be finite"),
    ("not-finite-NaN", LEAKY % ".NaN", "must be finite"),
    ("not-finite-inf", LEAKY % "-.inf", "must be finite"),
    ("not-finite-plus-inf", LEAKY % "+.Inf", "must be finite"),
    ("not-finite-overflow", LEAKY % "1.0e+400", "must be finite"),
    ("not-finite-overflow-without-sign", LEAKY % "-3e999", "must be finite"),
    ("not-finite-word", LEAKY % "nan", "expected a number"),
    ("not-finite-threshold", GOOD + "check: {thresholds: {weak_low: ▲.inf}}\n", "must be finite"),
    (
        "not-finite-init",
        HEAD + "layers: [Linear: {out_features: 4, init: {weight: {normal: {std: ▲.inf}}}}]\n",
        "must be finite",
    ),
    (
        "not-finite-scale",
        HEAD + "layers: [residual: {layers: [Tanh], skip_scale: ▲1e309}]\n",
        "must be finite",
    ),
    ("wrong-type-true", WIDTH % "true", "expected an integer", "'true'"),
    ("wrong-type-float", WIDTH % "12.0", "expected an integer", "'12.0'"),
    ("wrong-type-string", WIDTH % '"12"', "expected an integer", "the string '12'"),
    ("wrong-type-exponent", WIDTH % "1e3", "expected an integer"),
    ("wrong-type-list", WIDTH % "[12]", "expected an integer", "a list"),
    ("wrong-type-mapping", WIDTH % "{times: 3}", "expected an integer", "a mapping"),
    ("wrong-type-null", WIDTH % "null", "expected an integer"),
    ("wrong-type-words", WIDTH % "4 8", "expected an integer"),
    ("wrong-type-float-in-shape", "input: {shape: [3, ▲8.0]}\n" + TAIL, "expected an integer"),
    ("wrong-type-list-in-shape", "input: {shape: [▲[3]]}\n" + TAIL, "expected an integer"),
    ("wrong-type-shape-as-number", "input: {shape: ▲6}\n" + TAIL, "expected a list"),
    (
        "wrong-type-times",
        HEAD + "layers: [repeat: {times: ▲2.5, layers: [Tanh]}]\n",
        "expected an integer",
    ),
    ("wrong-type-tokens", "input: {shape: [6], tokens: ▲true}\n" + TAIL, "expected an integer"),
    (
        "wrong-type-batch-size",
        "input: {shape: [6], batch_size: ▲'8'}\n" + TAIL,
        "expected an integer",
    ),
    (
        "wrong-type-float-in-list",
        "input: {shape: [3, 9, 9]}\nlayers: [Conv2d: {out_channels: 2, kernel_size: [3, ▲3.0]}]\n",
        "expected an integer",
    ),
    (
        "word-or-null",
        HEAD + "layers: [Linear: {out_features: 4}, MaxPool1d: {kernel_size: 2, stride: ▲two}]\n",
        "expected an integer, found 'two'",
    ),
    (
        "true-or-null",
        HEAD + "layers: [Upsample: {scale_factor: 2, align_corners: ▲True}]\n",
        "expected true or false, found 'True'",
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
def test_numbers(parse: Callable[[str], NetworkSpec], text: str, value: float) -> None:
    found = parse(LEAKY.replace("▲", "") % text).layers[1].arguments["negative_slope"]
    assert found == value
    assert isinstance(found, float)


@pytest.mark.parametrize("name", ["on", "yes", "null", "1e3", "2024-01-01", "~", "0x10"])
def test_quoted_words_are_names(probe: Run, name: str) -> None:
    result = probe(NAME % f"'{name}'", "--level", "leaves", "--format", "json")
    assert result.code == 0
    assert f"0.{name}" in [row["name"] for row in json.loads(result.out)["rows"]]
