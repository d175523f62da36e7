"""The JSON Schema of a spec, held against the parser; and specs that are printed and read back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from helpers.commands import Result
from helpers.places import ROOT

import gradprobe
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.network import LayerSpec, NetworkSpec
from gradprobe.spec.schema import spec_schema
from gradprobe.spec.sources.stack import NORMS, StackOptions
from gradprobe.spec.sources.stack import load as load_stack
from gradprobe.spec.sources.yaml import parse_init
from gradprobe.spec.vocabulary import COMBINATORS, INITS
from gradprobe.spec.write import render_spec
from gradprobe.verdict.rules.table import RULE_WORDS, check_ignores

SCHEMA = spec_schema(RULE_WORDS)
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
FILES = sorted([*ROOT.glob("model_specs/*.yaml"), *ROOT.glob("tests/specs/good/*.yaml")])
Parse = Callable[[str], NetworkSpec]


class Loader(yaml.SafeLoader):
    """YAML 1.2 numbers, which is what an editor's language server reads: 1e-3 is one."""


Loader.yaml_implicit_resolvers = {
    key: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))
    ]
    for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def errors(text: str) -> list[str]:
    document = yaml.load(text, Loader)
    return [error.message for error in VALIDATOR.iter_errors(document)]


# ---- the schema and the parser agree


def test_the_schema_is_valid_draft_7() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_the_command_prints_the_schema(run: Callable[..., Result], tmp_path: Path) -> None:
    ended = run("schema")
    assert ended.code == 0
    assert json.loads(ended.out) == SCHEMA
    assert run("schema", "-o", tmp_path / "schema.json").out == ""
    assert (tmp_path / "schema.json").read_text() == ended.out


def test_there_are_files_to_try() -> None:
    assert len(FILES) > 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_schema_accepts_a_file_that_the_parser_accepts(file: Path) -> None:
    gradprobe.load(str(file))
    assert errors(file.read_text()) == []


HEAD = "input: {shape: [8]}\nlayers:\n"
LINEAR_INIT = HEAD + "  - Linear: {out_features: 3, init: "
IGNORE = HEAD + "  - ReLU\ncheck: {ignore: ["

GOOD = [
    HEAD + "  - ReLU\n  - Linear: {out_features: 3}",
    HEAD + "  - Linear: {out_features: 3, bias: false, name: head, init: {weight: zeros}}",
    HEAD + "  - LayerNorm:\n  - LayerNorm: {}\n  - LayerNorm: {eps: 1e-3}",
    HEAD + "  - PReLU: {init: 0.1}\n  - PReLU: {init: {weight: {constant: {val: 1}}}}",
    HEAD + "  - MaxPool2d: {kernel_size: [2, 2], stride: null}",
    HEAD + "  - repeat: {times: 3, name: body, layers: [ReLU]}",
    HEAD + "  - residual: [ReLU]\n  - residual: {layers: [ReLU], skip_scale: 0.5, zero_init: true}",
    HEAD + "  - residual: {layers: [ReLU], shortcut: [ReLU]}",
    HEAD + "  - residual: {layers: [ReLU], shortcut: {Linear: {out_features: 8}}}",
    HEAD + "  - residual: {layers: [ReLU], shortcut: ReLU}",
    HEAD + "  - concat: [[ReLU], []]\n  - concat: {branches: [[ReLU]], dim: 2}",
    HEAD + "  - sequential: [ReLU]\n  - sequential: {layers: [ReLU], name: x}",
    HEAD + "  - ReLU\ninit: {Linear: {weight: orthogonal, bias: {normal: {std: 0.1}}}}",
    HEAD + "  - ReLU\nloss: mse\nname: a network",
    HEAD + "  - ReLU\ncheck:\n  thresholds: {vanishing: 1e-6}\n  ignore:\n"
    "    - {rule: GP101, reason: it is a bad example}",
    "input: {shape: [1], tokens: 5, batch_size: 2}\nlayers: [ReLU]",
]
BAD = {
    "a misspelt argument": HEAD + "  - Linear: {out_feature: 3}",
    "a misspelt layer": HEAD + "  - Lineer: {out_features: 3}",
    "widht": "widht: 3\n" + HEAD + "  - ReLU",
    "a layer with a required argument, bare": HEAD + "  - Linear",
    "a layer with a required argument, empty": HEAD + "  - Linear:",
    "two layers in one": HEAD + "  - {ReLU: {}, Tanh: {}}",
    "no layers": HEAD + "  []",
    "layers missing": "input: {shape: [8]}",
    "input missing": "layers: [ReLU]",
    "an empty shape": "input: {shape: []}\nlayers: [ReLU]",
    "shape missing": "input: {}\nlayers: [ReLU]",
    "a string for a number": HEAD + "  - Linear: {out_features: '3'}",
    "a fraction for an integer": HEAD + "  - Linear: {out_features: 3.5}",
    "zero for a size": HEAD + "  - Linear: {out_features: 0}",
    "a negative padding": HEAD + "  - MaxPool2d: {kernel_size: 2, padding: -1}",
    "a size beyond the range": HEAD + "  - Linear: {out_features: 2147483648}",
    "a boolean for a number": HEAD + "  - Dropout: {p: true}",
    "a number for a boolean": HEAD + "  - Linear: {out_features: 3, bias: 1}",
    "a mapping for a number": HEAD + "  - Dropout: {p: {a: 1}}",
    "an empty list of sizes": HEAD + "  - MaxPool2d: {kernel_size: []}",
    "a repeat without times": HEAD + "  - repeat: {layers: [ReLU]}",
    "a repeat of nothing": HEAD + "  - repeat: {times: 2, layers: []}",
    "zero times": HEAD + "  - repeat: {times: 0, layers: [ReLU]}",
    "a residual with a scale misspelt": HEAD + "  - residual: {layers: [ReLU], skipscale: 1}",
    "an empty residual": HEAD + "  - residual: []",
    "a bare combination": HEAD + "  - residual",
    "a concat of no branches": HEAD + "  - concat: []",
    "a concat of layers": HEAD + "  - concat: [ReLU]",
    "an unknown init": LINEAR_INIT + "{weight: xavier}}",
    "an init with a wrong argument": LINEAR_INIT + "{weight: {normal: {sd: 1}}}}",
    "an init that is no mapping": LINEAR_INIT + "zeros}",
    "an init without its argument": LINEAR_INIT + "{weight: constant}}",
    "an init of no layer": HEAD + "  - ReLU\ninit: {Lin: {weight: zeros}}",
    "an unknown loss": HEAD + "  - ReLU\nloss: l2",
    "an unknown threshold": HEAD + "  - ReLU\ncheck: {thresholds: {vanish: 1}}",
    "a threshold of zero": HEAD + "  - ReLU\ncheck: {thresholds: {vanishing: 0}}",
    "an ignore without a reason": IGNORE + "{rule: GP101}]}",
    "an ignore with an empty reason": IGNORE + "{rule: GP101, reason: ''}]}",
    "an ignore of no rule": IGNORE + "{rule: GP1, reason: x}]}",
    "a name that is a number": HEAD + "  - ReLU: {name: '3'}",
    "a name with a dot": HEAD + "  - ReLU: {name: a.b}",
    "an empty name": HEAD + "  - ReLU: {name: ''}",
    "a list": "- ReLU",
    "a word": "ReLU",
    "nothing": "",
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_both_accept(parse: Parse, text: str) -> None:
    parse(text)
    assert errors(text) == []


@pytest.mark.parametrize("name", BAD)
def test_both_refuse(parse: Parse, name: str) -> None:
    with pytest.raises(gradprobe.InputError):
        check_ignores(parse(BAD[name]))
    assert errors(BAD[name])


def test_every_word_of_the_vocabulary_is_in_the_schema() -> None:
    text = json.dumps(SCHEMA)
    for word in (*LAYERS, *COMBINATORS, *INITS):
        assert f'"{word}"' in text


@pytest.mark.parametrize(
    "kind", [k for k in LAYERS if k.startswith(("Conv", "Max", "Batch", "LSTM"))]
)
def test_the_schema_completes_the_arguments_of_a_layer(kind: str) -> None:
    [_, mapping] = SCHEMA["definitions"]["layer"]["anyOf"]
    body = json.dumps(mapping["properties"][kind])
    from gradprobe.spec.vocabulary import layer_arguments

    assert all(f'"{name}"' in body for name in (*layer_arguments(kind), "init", "name"))


# ---- printed and read back


def without_places(value: Any) -> Any:
    """The spec as plain data, without where it stood."""
    if isinstance(value, tuple):
        return [without_places(item) for item in value]
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        left_out = {"place", "rule_place", "lines", "source"}
        kept = [f.name for f in fields(value) if f.name not in left_out]
        return {name: without_places(getattr(value, name)) for name in kept}
    return value


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_that_is_printed_reads_back_as_the_same_network(parse: Parse, file: Path) -> None:
    spec = gradprobe.load(str(file))
    printed = render_spec(spec)
    assert without_places(parse(printed)) == without_places(spec)
    assert render_spec(parse(printed)) == printed
    assert errors(printed) == []


@pytest.mark.parametrize("text", GOOD)
def test_a_spec_that_is_printed_reads_back_as_the_same_network(parse: Parse, text: str) -> None:
    spec = parse(text)
    assert without_places(parse(render_spec(spec))) == without_places(spec)


VARIANCE = "{variance_scaling: {scale: 9, mode: fan_avg}}"
INIT_WORDS = [None, "kaiming_normal", VARIANCE, "{normal: {std: 1e-5}}"]
STACK_OPTIONS = [
    StackOptions(depth, width, activation, parse_init(init) if init else None, norm, zero)
    for (depth, width), (activation, init), norm, zero in product(
        [(1, 1), (7, 12)],
        [("relu", None), *(("PReLU", init) for init in INIT_WORDS)],
        NORMS,
        [False, True],
    )
]


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_a_stack_that_is_printed_reads_back_as_the_same_network(parse: Parse, name: str) -> None:
    for options in STACK_OPTIONS:
        if options.zero_init and name == "plain":
            continue
        spec = load_stack(name, options)
        printed = render_spec(spec)
        assert without_places(parse(printed)) == without_places(spec)
        assert errors(printed) == []


@pytest.mark.parametrize("stack", ["plain", "residual"])
@pytest.mark.parametrize(
    "options", ["", "--norm batch --activation gelu", "--init orthogonal --depth 3 --width 8"]
)
def test_an_emitted_spec_probes_as_the_stack_itself(
    run: Callable[..., Result], tmp_path: Path, stack: str, options: str
) -> None:
    words = options.split()
    file = tmp_path / "net.yaml"
    assert run("probe", stack, *words, "--emit-spec", "-o", file).code == 0
    assert errors(file.read_text()) == []
    reports = [
        json.loads(run("probe", *target, "--format", "json").out)
        for target in ((stack, *words), (file,))
    ]
    for report in reports:
        del report["target"]
        for row in (*report["rows"], *report["findings"]):
            del row["line"], row["column"]
    assert reports[0] == reports[1]


NAMES = [
    "plain",
    "1e5",
    "yes",
    "null",
    "a: b",
    "#x",
    "é✓",
    "'",
    '"',
    "- x",
    "{}",
    "a\\b",
    "01",
    "~",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_yaml_could_misread_survives(parse: Parse, name: str) -> None:
    spec = parse(HEAD + "  - ReLU")
    assert parse(render_spec(replace(spec, name=name))).name == name
    if not name.isdigit():
        named = replace(spec, layers=(LayerSpec("ReLU", name=name),))
        assert parse(render_spec(named)).layers[0].name == name


NUMBERS = [0.1, 1e-5, 1e30, -3.0, 5e-324, 123456789.123, 1e16, 2.0]


@pytest.mark.parametrize("value", NUMBERS)
def test_a_number_survives_to_the_last_bit(parse: Parse, value: float) -> None:
    spec = replace(parse(HEAD + "  - ReLU"), layers=(LayerSpec("Softplus", {"beta": value}),))
    assert parse(render_spec(spec)).layers[0].arguments["beta"] == value
