"""What stands between the blocks of a streamed network: in memory, in a file, in bfloat16."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.places import CONFIGS

from gradprobe.errors import ExitCode, ModelError
from gradprobe.model.fits import room_between
from gradprobe.model.kept import Store, while_used
from gradprobe.model.plan import plan
from gradprobe.spec.network import ArchitectureSpec
from gradprobe.spec.options import Limits, ProbeOptions
from gradprobe.spec.sources import yaml
from gradprobe.tasks.targets import load_target
from gradprobe.worker.run import measure_target
from tests.helpers.commands import Run

SPEC = """\
input: {shape: [64]}
layers:
  - Linear: {out_features: 520}
  - repeat: {times: 4, layers: [residual: [Linear: {out_features: 520}, Tanh, Dropout]]}
  - Linear: {out_features: 4, init: {weight: zeros}}
"""


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def tight() -> Limits:
    """What one block takes, and nothing for what stands between blocks."""
    whole = plan(yaml.parse(SPEC.encode(), "spec.yaml"), 4)
    return Limits(memory=-room_between(whole, Limits(memory=0)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_what_does_not_fit_comes_back_from_a_file_without_a_name(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store(10 * dtype.itemsize)
    tensors = [torch.arange(10).to(dtype), torch.arange(12).view(3, 4).T.to(dtype), torch.ones(3)]
    kept = [store.keep(tensor) for tensor in tensors]
    assert store.file is not None
    assert os.fstat(store.file.fileno()).st_size >= 12 * dtype.itemsize
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(k.get(), t) for k, t in zip(kept, tensors, strict=True))
    assert kept[1].get().dtype is dtype


def test_a_store_is_the_same_while_something_is_kept_in_it() -> None:
    current = while_used(Store)
    first = current()
    kept = first.keep(torch.ones(2))
    assert current() is first
    del first
    assert current() is kept.store


def test_what_was_overwritten_meanwhile_is_refused() -> None:
    x = torch.ones(2)
    kept = Store().keep(x)
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.get()


def test_numbers_from_the_disk_are_those_from_memory() -> None:
    spec = yaml.parse(SPEC.encode(), "spec.yaml")
    options = ProbeOptions(batch_size=4, stream=True)
    with largest_file(0), pytest.raises(ModelError, match=r"cannot be kept in .*: File too large"):
        measure_target(spec, ProbeOptions(batch_size=4, stream=True, limits=tight()))
    on_disk = measure_target(spec, ProbeOptions(batch_size=4, stream=True, limits=tight()))
    assert on_disk == measure_target(spec, options)


def test_a_full_disk_ends_a_probe_with_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    command = ["probe", str(tmp_path / "spec.yaml"), "--batch-size=4", "--stream"]
    with largest_file(4096):
        result = run(*command, f"--max-memory={tight().memory}")
    assert result.code == ExitCode.FAILURE
    assert "what stands between blocks cannot be kept in" in result.err
    assert "hint: TMPDIR names another folder, --max-memory allows more in memory" in result.err


def test_a_model_of_parts_keeps_what_they_read_in_a_file() -> None:
    pytest.importorskip("transformers")
    spec = load_target(str(CONFIGS / "llama"))
    assert isinstance(spec, ArchitectureSpec)
    options = ProbeOptions(batch_size=2, stream=True)
    measured = measure_target(spec, options)
    sizes = [sum(p.size for p in row.parameters) for row in measured.profile.rows]
    limits = Limits(memory=max(sizes) * 4 * 2)
    with largest_file(0), pytest.raises(ModelError, match="cannot be kept"):
        measure_target(spec, ProbeOptions(batch_size=2, stream=True, limits=limits))
    assert measure_target(spec, ProbeOptions(batch_size=2, stream=True, limits=limits)) == measured


def test_in_bfloat16_the_numbers_are_about_the_same() -> None:
    spec = yaml.parse(SPEC.replace("init: {weight: zeros}", "").encode(), "spec.yaml")
    reaches = []
    for boundaries in (None, "bfloat16"):
        options = ProbeOptions(batch_size=4, stream=True, boundaries=boundaries)
        profile = measure_target(spec, options).profile
        reaches.append([row.gradient_norm for row in profile.rows])
    assert reaches[0] != reaches[1]
    assert reaches[0] == pytest.approx(reaches[1], rel=0.02)
