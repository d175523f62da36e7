"""Whatever stands in a spec file, a probe ends in 0, 1 or 2, and says so without a traceback."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from helpers.mutations import ANY, NUMBERS, WORDS, Change, mutate
from helpers.places import SPECS
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from gradprobe.cli.main import main
from gradprobe.spec.layers import LAYERS
from gradprobe.spec.vocabulary import INITS, LOSSES, Argument, arguments_of, layer_arguments

GOOD = sorted((SPECS / "good").glob("*.yaml"))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in GOOD}

# Small enough that no example takes long; what is refused by them is refused before it is built.
LIMITS = ("--max-memory", "64MiB", "--max-parameters", "100000", "--batch-size", "2")

fractions = st.floats(0, 1, width=16)
changes = st.one_of(
    st.builds(Change, st.just("number"), fractions, fractions, st.sampled_from(NUMBERS)),
    st.builds(Change, st.just("word"), fractions, fractions, st.sampled_from(WORDS)),
    st.builds(
        Change,
        st.sampled_from(["insert", "replace"]),
        fractions,
        fractions,
        st.sampled_from(ANY),
    ),
    st.builds(
        Change,
        st.sampled_from(["swap", "delete", "duplicate", "lines", "flip"]),
        fractions,
        fractions,
        st.just(""),
    ),
)


def probe(path: Path, data: bytes, *options: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a probe of ``data`` in this process."""
    path.write_bytes(data)
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main(["probe", str(path), *LIMITS, *options])
    return int(stopped.value.code or 0), out.getvalue(), err.getvalue()


def check(path: Path, data: bytes, *options: str) -> None:
    code, out, err = probe(path, data, *options)
    assert code in (0, 1, 2), err
    assert "Traceback" not in err
    assert "gradprobe: internal error" not in err
    if code == 2:
        assert out == ""
        assert err.startswith(f"{path}:"), err
        assert ": error: " in err.splitlines()[0]
    else:
        assert err == ""
        assert out


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "net.yaml"


BOUNDED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.slow
@settings(BOUNDED, max_examples=60)
@given(
    name=st.sampled_from(sorted(TEXTS)),
    mutations=st.lists(changes, min_size=1, max_size=4),
)
def test_a_mutated_spec_ends_in_0_1_or_2(path: Path, name: str, mutations: list[Change]) -> None:
    text = TEXTS[name]
    for change in mutations:
        text = mutate(text, change)
    check(path, text.encode("utf-8", "surrogatepass"))


@settings(BOUNDED, max_examples=40)
@given(data=st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf")
@example(b"input: {shape: [1]}\nlayers: [PReLU]\n")
def test_any_bytes_end_in_0_1_or_2(path: Path, data: bytes) -> None:
    check(path, data)


@settings(BOUNDED, max_examples=40)
@given(pieces=st.lists(st.sampled_from(ANY), max_size=30))
def test_any_words_of_the_language_end_in_0_1_or_2(path: Path, pieces: list[str]) -> None:
    check(path, "".join(pieces).encode("utf-8", "surrogatepass"))


# ---- specs that the parser accepts: any layer, any argument of the right type

SIZES = [1, 1, 2, 2, 3, 4, 5, 8, 64, 1000, 2**31 - 1]
STRINGS = "same valid reflect replicate circular zeros bilinear nearest linear sum mean max".split()
VALUES: dict[str, st.SearchStrategy[str]] = {
    "size": st.sampled_from(SIZES).map(str),
    "count": st.sampled_from([0, *SIZES]).map(str),
    "int": st.sampled_from([-(2**31) + 1, -3, -2, -1, 0, 1, 2, 3]).map(str),
    "float": st.sampled_from("0 1 -1 0.5 2 1e-3 1e30 -1e30 1e-30 3.7".split()),
    "bool": st.sampled_from(["true", "false"]),
    "null": st.just("null"),
    "str": st.sampled_from([*STRINGS, "tanh", "relu", "gelu", "none", "fan_in", "uniform", "x"]),
}
for plural, single in (
    ("sizes", "size"),
    ("counts", "count"),
    ("ints", "int"),
    ("floats", "float"),
):
    VALUES[plural] = st.lists(VALUES[single], min_size=1, max_size=4).map(
        lambda items: "[" + ", ".join(items) + "]"
    )


@st.composite
def fields(draw: st.DrawFn, known: dict[str, Argument]) -> str:
    chosen = [
        f"{argument.name}: {draw(VALUES[draw(st.sampled_from(argument.types))])}"
        for argument in known.values()
        if argument.required or (not argument.inferred and draw(st.booleans()))
    ]
    return ", ".join(chosen)


@st.composite
def leaves(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(
            st.sampled_from("1 2 4 8".split()).map("{{Linear: {{out_features: {}}}}}".format)
        )
    kind = draw(st.sampled_from(sorted(LAYERS)))
    body = draw(fields(layer_arguments(kind)))
    if draw(st.integers(0, 4)) == 0:
        name = draw(st.sampled_from(sorted(INITS)))
        init = f"{{{name}: {{{draw(fields(arguments_of(INITS[name])))}}}}}"
        if "init" not in layer_arguments(kind):
            body += (", " if body else "") + f"init: {{weight: {init}}}"
    return f"{{{kind}: {{{body}}}}}"


def combined(inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    some = st.lists(inside, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        st.builds("{{repeat: {{times: {}, layers: [{}]}}}}".format, st.integers(1, 4), some),
        st.builds("{{residual: [{}]}}".format, some),
        st.builds(
            "{{residual: {{layers: [{}], zero_init: {}, skip_scale: {}}}}}".format,
            some,
            VALUES["bool"],
            VALUES["float"],
        ),
        st.builds("{{residual: {{layers: [{}], branch_scale: {}}}}}".format, some, VALUES["float"]),
        st.builds("{{residual: {{layers: [{}], shortcut: [{}]}}}}".format, some, some),
        st.builds("{{concat: {{branches: [[{}], []], dim: {}}}}}".format, some, st.integers(-2, 3)),
        st.builds("{{sequential: [{}]}}".format, some),
    )


SHAPES = ["[4]", "[1]", "[64]", "[3, 4]", "[6, 12]", "[2, 4, 4]", "[4, 8, 8]", "[2, 4, 4, 4]"]


@pytest.mark.slow
@settings(BOUNDED, max_examples=50)
@given(
    start=st.one_of(
        st.sampled_from(SHAPES).map("input: {{shape: {}}}\nlayers:\n".format),
        st.sampled_from(["[4]", "[2, 3]"]).map(
            "input: {{shape: {}, tokens: 7}}\nlayers:\n- Embedding: {{embedding_dim: 4}}\n".format
        ),
    ),
    layers=st.lists(st.recursive(leaves(), combined, max_leaves=4), min_size=1, max_size=3),
    end=st.sampled_from(["", "- Flatten\n- Linear: {out_features: 3}\n"]),
    loss=st.sampled_from(LOSSES),
    level=st.sampled_from(["blocks", "leaves"]),
)
def test_any_layers_end_in_0_1_or_2(
    path: Path, start: str, layers: list[str], end: str, loss: str, level: str
) -> None:
    spec = start + "".join(f"- {layer}\n" for layer in layers) + end + f"loss: {loss}\n"
    check(path, spec.encode(), "--level", level)
