"""Options and arguments that are wrong."""

from __future__ import annotations

import pytest
from helpers.bad_inputs import SEQUENCE, clean, misused
from helpers.commands import Run


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


def test_a_number_that_is_too_small(run: Run) -> None:
    ended = run("paths", "plain", "--max-paths", "-1")
    misused(ended, "invalid value for '--max-paths': should be greater than or equal to 0\n")


def test_a_rule_that_is_none(run: Run) -> None:
    misused(run("rules", "GP999"), "no rule 'GP999'\nhint: gradprobe rules lists them\n")


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
        "LSTM: {hidden_size: 4, dropout: 0.5}, Linear: {out_features: 4}",
        "LSTM: {hidden_size: 4, proj_size: 2}, Linear: {out_features: 4}",
        "Conv1d: {out_channels: 4, kernel_size: 2, padding: same}",
        "Linear: {out_features: 4}, Dropout2d",
    ],
)
def test_a_warning_of_torch_is_not_passed_on(probe: Run, layers: str) -> None:
    result = probe(SEQUENCE + f"layers: [{layers}]\n")
    assert result.code == 0
    assert result.err == ""
