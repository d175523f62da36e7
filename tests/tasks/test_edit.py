"""Edits of a spec's text: exactly the network that is meant, and every other byte as it was."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from helpers.places import MODEL_SPECS, SPECS
from hypothesis import given, settings
from hypothesis import strategies as st

from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.sources.yaml import parse
from gradprobe.tasks.fix.changes import Change, SetArguments, apply, same_network
from gradprobe.tasks.fix.edit import edit
from gradprobe.tasks.fix.layout import CannotEditError
from gradprobe.tasks.fix.recipes import Recipe, changes_for, recipes
from gradprobe.tasks.fix.search import unified_diff

GOOD = sorted((SPECS / "good").glob("*.yaml"))
MODELS = sorted(MODEL_SPECS.glob("*.yaml"))


def read(text: str) -> NetworkSpec:
    return parse(text.encode(), "net.yaml")


def edited(text: str, recipe: Recipe) -> str:
    spec = read(text)
    changes = changes_for(spec, recipe)
    assert changes
    return edit(text, spec, changes)


BLOCK = """\
name: block style  # a remark
input:
  shape: [8]
layers:
  # the stem
  - Linear: {out_features: 8}

  - repeat:   # the body
      times: 3
      layers:
        - Linear: {out_features: 8}   # first
        # in between

        - Sigmoid
      # behind the body
  - Linear: {out_features: 2}
"""

WRAPPED = """\
  - repeat:   # the body
      times: 3
      layers:
        - residual:
            - Linear: {out_features: 8}   # first
            # in between

            - Sigmoid
      # behind the body
"""


def test_a_wrap_indents_the_body_and_nothing_else() -> None:
    before = BLOCK[BLOCK.index("  - repeat") : BLOCK.index("  - Linear: {out_features: 2}")]
    assert edited(BLOCK, Recipe(skip=True)) == BLOCK.replace(before, WRAPPED)


def test_a_scaled_wrap_names_its_arguments() -> None:
    text = edited(BLOCK, Recipe(skip=True, scale=True, norm="layer"))
    lines = [line.strip() for line in text.splitlines()]
    start = lines.index("- residual:")
    assert lines[start + 1 : start + 4] == ["branch_scale: 0.58", "layers:", "- LayerNorm"]


def test_a_norm_stands_between_weights_and_activation() -> None:
    added = set(edited(BLOCK, Recipe(norm="layer")).splitlines()) - set(BLOCK.splitlines())
    assert added == {"        - LayerNorm"}
    lines = [line.strip() for line in edited(BLOCK, Recipe(norm="layer")).splitlines()]
    assert lines[lines.index("- LayerNorm") + 1] == "- Sigmoid"


def test_a_renamed_layer_keeps_its_line() -> None:
    assert edited(BLOCK, Recipe(activation="Tanh")) == BLOCK.replace("- Sigmoid", "- Tanh")


def test_an_init_section_is_put_in_front_of_the_layers() -> None:
    section = "init:\n  Linear: {weight: xavier_normal, bias: zeros}\nlayers:\n"
    assert edited(BLOCK, Recipe(init="fitting")) == BLOCK.replace("layers:\n", section, 1)


FLOW = (
    "{input: {shape: [8]}, layers: [Linear: {out_features: 8}, repeat: {times: 3, layers: "
    "[Linear: {out_features: 8}, Tanh]}, Linear: {out_features: 2}]}"
)


@pytest.mark.parametrize(
    ("recipe", "old", "new"),
    [
        (
            Recipe(skip=True),
            "[Linear: {out_features: 8}, Tanh]",
            "[residual: [Linear: {out_features: 8}, Tanh]]",
        ),
        (
            Recipe(skip=True, zero=True),
            "[Linear: {out_features: 8}, Tanh]",
            "[residual: {zero_init: true, layers: [Linear: {out_features: 8}, Tanh]}]",
        ),
        (Recipe(norm="layer"), ", Tanh", ", LayerNorm, Tanh"),
        (
            Recipe(init="fitting"),
            "layers: [Linear: {out_features: 8}, repeat",
            "init: {Linear: {weight: xavier_normal, bias: zeros}}, "
            "layers: [Linear: {out_features: 8}, repeat",
        ),
    ],
)
def test_flow_style_stays_flow_style(recipe: Recipe, old: str, new: str) -> None:
    assert edited(FLOW, recipe) == FLOW.replace(old, new, 1)


OWN_INIT = """\
input: {shape: [8]}
init: {Linear: {weight: orthogonal}}
layers:
  - Linear: {out_features: 8}
  - repeat:
      times: 3
      layers:
        - Linear:
            out_features: 8
            init:
              weight:
                normal:
                  std: 0.01  # too small
              bias: zeros
        - ReLU
        - Linear: {out_features: 8}
        - ReLU
  - Linear: {out_features: 2}
"""


def test_an_init_of_a_layer_is_changed_where_it_stands() -> None:
    text = edited(OWN_INIT, Recipe(init="fitting"))
    assert "weight: kaiming_normal  # too small\n              bias: zeros" in text
    assert "init: {Linear: {bias: zeros, weight: kaiming_normal}}" in text


RESIDUAL = """\
input: {shape: [8]}
layers:
  - Linear: {out_features: 8}
  - repeat:
      times: 4
      layers:
      - residual:
        - Linear: {out_features: 8}  # one
        - Tanh
  - residual: [Linear: {out_features: 8}, Tanh]
  - residual: {skip_scale: 0.5, layers: [Linear: {out_features: 8}]}
  - Linear: {out_features: 2}
"""


def test_arguments_of_every_form_of_residual() -> None:
    text = edited(RESIDUAL, Recipe(clean=True, scale=True))
    assert "skip_scale: 1," in text
    layers = read(text).layers
    block, one, clean = layers[1].branches[0][0], layers[2], layers[3]
    assert block.arguments == one.arguments == {"branch_scale": 0.41}  # 1/√6: there are 6 blocks
    assert clean.arguments == {"branch_scale": 0.41, "skip_scale": 1.0}
    assert "- Linear: {out_features: 8}  # one\n" in text


def test_an_unrolled_stack_is_wrapped_layer_by_layer() -> None:
    rows = "".join("- Linear: {out_features: 8}\n- Tanh\n" for _ in range(4))
    text = f"input: {{shape: [4]}}\nlayers:\n{rows}- Linear: {{out_features: 2}}\n"
    spec = read(edited(text, Recipe(skip=True)))
    kinds = [layer.kind for layer in spec.layers]
    assert kinds == ["Linear", "Tanh", "residual", "residual", "residual", "Linear"]


# ---- every file of the repository, every recipe


@pytest.mark.parametrize("path", [*GOOD, *MODELS], ids=lambda p: p.stem)
def test_every_recipe_edits_every_spec_or_leaves_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    spec = parse(text.encode(), path.name)
    most = 1 if path in MODELS else 2
    for recipe in [one for one in recipes() if sum(map(bool, one)) <= most]:
        changes = changes_for(spec, recipe)
        if not changes:
            continue
        try:
            result = edit(text, spec, changes)
        except CannotEditError:
            assert "&" in text  # of these files only those with anchors
            continue
        assert remarks(result) == remarks(text)
        assert not same_network(parse(result.encode(), path.name), spec)


def remarks(text: str) -> list[str]:
    return re.findall(r"#.*", text)


# ---- the property: what is not part of the change stays, byte for byte

eols = st.sampled_from(["\n", "\r\n"])
words = st.text("abc äß漢\t#:-{}[]&*'\"", max_size=12)
comment = st.one_of(st.just(""), words.map(lambda text: f"  # {text.rstrip()}"))


@st.composite
def layouts(draw: st.DrawFn) -> str:
    """The same plain network, written in one of many ways."""
    step, eol = draw(st.sampled_from([0, 2])), draw(eols)
    activation = draw(st.sampled_from(["Tanh", "Sigmoid", "ReLU", "'ReLU'"]))
    init = draw(st.sampled_from(["", ", init: {weight: orthogonal}", ", bias: false"]))
    pad = " " * step

    def line(text: str) -> str:
        return text + draw(comment)

    def between() -> list[str]:
        return draw(
            st.lists(st.one_of(st.just(""), words.map(lambda w: f"# {w.rstrip()}")), max_size=1)
        )

    inner = " " * (step + 4 + step)
    body = (
        [line(f"{pad}    layers: [Linear: {{out_features: 8{init}}}, {activation}]")]
        if draw(st.booleans())
        else [
            line(f"{pad}    layers:"),
            *between(),
            line(f"{inner}- Linear: {{out_features: 8{init}}}"),
            *between(),
            line(f"{inner}- {activation}"),
        ]
    )
    lines = [
        *between(),
        line("input: {shape: [8]}"),
        *draw(
            st.sampled_from(
                [[], ["init: {Linear: {bias: zeros}}"], ["init:", "  Linear:", "    bias: zeros"]]
            )
        ),
        line("layers:"),
        line(f"{pad}- Linear: {{out_features: 8}}"),
        *between(),
        line(f"{pad}- repeat:"),
        f"{pad}    times: 3",
        *body,
        *between(),
        line(f"{pad}- Linear: {{out_features: 2}}"),
    ]
    return eol.join(lines) + draw(st.sampled_from(["", eol]))


@settings(max_examples=60, deadline=None)
@given(layouts(), st.sampled_from([r for r in recipes() if sum(map(bool, r)) <= 2]))
def test_what_is_not_changed_stays_byte_for_byte(text: str, recipe: Recipe) -> None:
    spec = read(text)
    changes = changes_for(spec, recipe)
    if not changes:
        return
    result = edit(text, spec, changes)
    assert same_network(read(result), apply(spec, changes))
    assert remarks(result) == remarks(text)
    assert result.count("\r") == (result.count("\n") if "\r" in text else 0)
    assert result.endswith("\n") == text.endswith("\n")
    outside(text, result, indented=recipe.skip)


def outside(before: str, after: str, *, indented: bool) -> None:
    """Each old line is there, in order; only in the lines of layers may a place be another."""
    clean = str.strip if indented else str
    there = list(map(clean, after.split("\n")))
    for old in before.split("\n"):
        if not re.search("Linear|layers|init|Tanh|Sigmoid|ReLU", old):
            assert clean(old) in there
            there = there[there.index(clean(old)) + 1 :]
    new = iter(after.split("\n"))
    for old in before.split("\n"):
        words = re.findall(r"[^\s\[\]{},]+", old)
        changed = {"Tanh", "Sigmoid", "ReLU", "'ReLU'", "orthogonal"} & set(words)
        kept = [word for word in words if word not in changed]
        assert any(contains(line, kept) for line in new), old


def contains(line: str, words: list[str]) -> bool:
    left = iter(re.findall(r"[^\s\[\]{},]+", line))
    return all(word in left for word in words)


def test_an_edit_that_an_anchor_forbids_is_refused() -> None:
    text = (
        "input: {shape: [8]}\nlayers:\n  - &first {Linear: {out_features: 8}}\n  - Tanh\n"
        "  - repeat: {times: 3, layers: &body [*first, Tanh]}\n"
        "  - concat: [*body, *body]\n  - Linear: {out_features: 2}\n"
    )
    spec = read(text)
    with pytest.raises(CannotEditError):
        edit(text, spec, changes_for(spec, Recipe(skip=True)))


def test_an_edit_that_would_not_be_what_is_meant_is_refused() -> None:
    """The result is parsed and compared; a change that the text cannot carry does not pass."""
    spec = read(RESIDUAL)
    place = spec.layers[2].place
    assert place
    changes: list[Change] = [SetArguments(place, {"no_such": 1.0})]
    with pytest.raises(CannotEditError):
        edit(RESIDUAL, spec, changes)


# ---- the diff


def test_the_diff_says_when_the_last_line_does_not_end() -> None:
    lines = unified_diff("a\nb", "a\nc\n", "net.yaml")
    assert lines[-3:] == ["-b", "\\ No newline at end of file", "+c"]


def test_recipes_are_ordered_by_the_number_of_changes_first() -> None:
    sizes = [sum(map(bool, recipe)) for recipe in recipes()]
    assert sizes == sorted(sizes)
    assert len(set(recipes())) == len(recipes())
    assert recipes()[0] == Recipe(clean=True)
    assert all(a.skip for a in itertools.compress(recipes(), [size > 2 for size in sizes]))
