"""Every network in model_specs/: probed as a user would, and held against what theory says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from helpers.commands import Result
from helpers.model_specs import EXPECTED
from helpers.places import ROOT

from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.sources.yaml import load

FOLDER = ROOT / "model_specs"
FILES = sorted(path.name for path in FOLDER.glob("*.y*ml"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for a busy core cost three times what they save."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def probe(run: Callable[..., Result]) -> Callable[[str], Result]:
    """``gradprobe probe FILE --format json``, once for each file."""

    def call(file: str) -> Result:
        if file == "resnet50.yaml":
            return _resnet50()[0]
        if file not in _PROBED:
            _PROBED[file] = run("probe", FOLDER / file, "--format", "json")
        return _PROBED[file]

    return call


_PROBED: dict[str, Result] = {}


@cache
def _resnet50() -> tuple[Result, int]:
    """ResNet-50 is probed in a process of its own; the number is that process's peak in bytes."""
    code = """
import resource, sys
from gradprobe.cli.main import main
try:
    main(sys.argv[1:])
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak if sys.platform == "darwin" else 1024 * peak, file=sys.stderr)
"""
    command = [sys.executable, "-c", code, "probe", FOLDER / "resnet50.yaml", "--format", "json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    *err, peak = done.stderr.splitlines()
    return Result(done.returncode, done.stdout, "\n".join(err)), int(peak)


LARGE = ("gpt2_small.yaml", "resnet50.yaml", "residual_1000.yaml")
PROBED = [pytest.param(file, marks=[pytest.mark.slow] if file in LARGE else []) for file in FILES]


@pytest.mark.parametrize("file", PROBED)
def test_probe(file: str, probe: Callable[[str], Result]) -> None:
    expected = EXPECTED[file]
    result = probe(file)
    assert result.err == ""
    report = json.loads(result.out)
    assert report["verdict"] == expected.verdict
    assert report["parameters"] == expected.parameters
    off = max(report["reach"] / expected.reach, expected.reach / report["reach"])
    assert off <= expected.factor, f"reach {report['reach']:.3g}, expected {expected.reach:.3g}"
    assert result.code == (expected.verdict == "vanishing")
    assert {row["status"] for row in report["rows"]} == {"ok"}
    # What is expected beyond the verdict: nothing, but a word on branches that start at zero.
    others = {f["rule"] for f in report["findings"]} - {"GP101", "GP103"}
    assert others == ({"GP402"} if file == "residual_zero_init.yaml" else set())


def test_every_file_has_an_expectation() -> None:
    assert set(FILES) == set(EXPECTED)


@pytest.mark.parametrize("file", FILES)
def test_comment_and_name(file: str) -> None:
    lines = (FOLDER / file).read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 100
    comment = next(index for index, line in enumerate(lines) if not line.startswith("# "))
    assert 2 <= comment <= 5
    assert lines[comment].startswith("name: ")
    title = f"model_specs/{file}: {_load(file).name}"
    assert len(title) <= 80, "the report leaves out a title that is wider than the terminal"


# ---- the sizes that were published


def test_torchvision_counts() -> None:
    assert _parameters("resnet18.yaml") == 11_689_512
    assert _parameters("resnet50.yaml") == 25_557_032


def test_gpt2_count() -> None:
    published, positions, head = 124_439_808, 1_024 * 768, 50_257 * 768
    assert _parameters("gpt2_small.yaml") == published - positions + head


def test_counts_in_papers() -> None:
    assert round(_parameters("resnet110_cifar.yaml") / 1e6, 1) == 1.7  # He et al. 2015, table 6
    assert round(_parameters("densenet_like.yaml") / 1e6, 1) == 0.8  # Huang et al. 2017, table 2


def test_depths() -> None:
    """ResNet-18 has 18 layers with weights on its main path, and so on."""
    for file, depth in {
        "resnet18.yaml": 18,
        "resnet50.yaml": 50,
        "resnet110_cifar.yaml": 110,
        "densenet_like.yaml": 100,
    }.items():
        assert _main_path(_load(file).layers) == depth, file


# ---- what the comments say


def test_residual_zero_init_is_the_identity(probe: Callable[[str], Result]) -> None:
    rows = _rows(probe("residual_zero_init.yaml"))
    assert len({row["gradient_norm"] for row in rows[:-1]}) == 1  # bit for bit
    assert len({row["activation_rms"] for row in rows[:-1]}) == 1


def test_where_the_norm_stands(probe: Callable[[str], Result]) -> None:
    """Going back, the gradient grows in the pre-norm encoder and falls in the post-norm one."""
    pre, post = (
        [row["gradient_norm"] for row in _rows(probe(f"transformer_{name}.yaml"))[1:13]]
        for name in ("prenorm", "postnorm")
    )
    assert pre == sorted(pre, reverse=True)
    assert post[0] < 0.5 * post[-1]
    assert post[-1] > 2 * pre[-1]  # grows as √depth: why post-norm needs warm-up


@pytest.mark.slow
def test_resnet50_memory() -> None:
    """The high-water mark of the whole process, torch included."""
    assert _resnet50()[1] < 4 * 2**30


# ---- helpers


def _load(file: str) -> NetworkSpec:
    return load(str(FOLDER / file))


def _rows(result: Result) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(result.out)["rows"]
    return rows


def _parameters(file: str) -> int:
    from gradprobe.model.plan import plan

    spec = _load(file)
    return plan(spec, spec.input.batch_size or 2).parameters


def _main_path(layers: tuple[Any, ...]) -> int:
    """Convolutions and Linear layers in a chain, not counting those of shortcuts."""
    total = 0
    for layer in layers:
        branches = layer.branches[:1] if layer.kind == "residual" else layer.branches
        total += layer.kind in ("Linear", "Conv2d")
        total += layer.times * sum(map(_main_path, branches))
    return total
