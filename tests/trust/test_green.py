"""What must not be green: specs that mix the samples, and what a clone brings along."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.bad_inputs import refused
from helpers.commands import Run

from gradprobe.tasks.check.cache import Cache
from gradprobe.worker.exchange import Failure, Reply, encode

VECTOR = "input: {shape: [8], batch_size: 6}\nlayers:\n  - Linear: {out_features: 8}\n  - ▲"
TABLE = VECTOR.replace("[8]", "[4, 8]")


@pytest.mark.parametrize(
    "spec",
    [
        VECTOR + "Flatten: {start_dim: 0}\n",
        VECTOR + "Unflatten: {dim: 0, unflattened_size: [2, 3]}\n",
        VECTOR + "LayerNorm: {normalized_shape: [6, 8]}\n",
        VECTOR + "ZeroPad2d: {padding: 1}\n",
        VECTOR + "GLU: {dim: -2}\n",
        TABLE + "Unfold: {kernel_size: 2}\n",
        TABLE + "Softmax: {dim: -3}\n",
        TABLE + "ConstantPad3d: {padding: 1, value: 1.0}\n",
        # As many samples come out as go in, and each holds something of the others.
        TABLE + "ReflectionPad3d: {padding: [0, 0, 0, 0, 1, -1]}\n",
        TABLE + "CircularPad3d: {padding: [0, 0, 0, 0, 1, -1]}\n",
        # Larger than what is run while it is planned.
        VECTOR.replace("features: 8", "features: 12000") + "Softmax: {dim: 0}\n",
        TABLE.replace("features: 8", "features: 3000") + "GLU: {dim: 0}\n",
        TABLE.replace("features: 8", "features: 3000")
        + "CircularPad3d: {padding: [0, 0, 0, 0, 1, -1]}\n",
    ],
)
def test_a_layer_across_the_batch_is_refused_where_it_stands(
    run: Run, folder: Path, spec: str
) -> None:
    Path("x.yaml").write_text(spec.replace("▲", ""))
    refused(run("probe", "x.yaml"), "x.yaml", spec)


@pytest.mark.parametrize(
    "layer",
    [
        "BatchNorm1d",
        "Unflatten: {dim: 1, unflattened_size: [2, 4]}",
        "Softmax",
        "Dropout: {p: 0.5}",
        "Linear: {out_features: 12000}\n  - Softmax\n  - AlphaDropout",
    ],
)
def test_a_layer_that_keeps_the_samples_apart_passes(run: Run, folder: Path, layer: str) -> None:
    Path("x.yaml").write_text(VECTOR.replace("▲", layer) + "\n")
    assert run("probe", "x.yaml").code in (0, 1)


def test_to_plan_draws_nothing_from_the_global_stream(run: Run, folder: Path) -> None:
    Path("x.yaml").write_text(VECTOR.replace("▲", "Softmax") + "\n")
    before = torch.random.get_rng_state()
    run("probe", "x.yaml")
    assert torch.equal(before, torch.random.get_rng_state())


# ---- the cache


BAD = """input: {shape: [32]}
layers:
  - repeat: {times: 20, layers: [Linear: {out_features: 32}, Sigmoid]}
"""


def entries() -> list[Path]:
    return sorted(Path(".gradprobe_cache").glob("??/*"))


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_a_measurement_under_another_ones_name_is_not_believed(run: Run, folder: Path) -> None:
    assert run("check").code == 0
    [good] = entries()
    Path("bad.yaml").write_text(BAD)
    assert run("check", "bad.yaml").code == 1
    [bad] = [path for path in entries() if path != good]
    shutil.copyfile(good, bad)
    ended = run("check")
    assert ended.code == 1
    assert "bad.yaml is damaged, or not this user's: measured anew" in ended.err


@pytest.mark.usefixtures("forked_workers")
def test_an_entry_of_another_user_s_key_is_not_believed(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "theirs"))
    cache, key = Cache(folder / "cache"), "ab" * 32
    cache.write(key, encode(Reply(failure=Failure(2, "x"))))  # type: ignore[arg-type]
    assert cache.reply(key) is not None
    assert (folder / "theirs/gradprobe/secret").stat().st_mode & 0o777 == 0o600
    assert run("check").code == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "mine"))
    assert "measured anew" in run("check").err
    assert run("check").err == ""


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("kind", ["tracked", "link", "file", "link inside", "another user's"])
def test_a_cache_that_came_with_the_clone_is_left_alone(
    run: Run, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, elsewhere = Path(".gradprobe_cache"), folder.parent / f"{folder.name}-elsewhere"
    elsewhere.mkdir()
    if kind == "file":
        cache.write_text("x")
    elif kind == "link":
        cache.symlink_to(elsewhere)
    elif kind == "link inside":
        cache.mkdir()
        for number in range(256):
            (cache / f"{number:02x}").symlink_to(elsewhere)
    elif kind == "another user's":
        cache.mkdir()
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    else:
        cache.mkdir()
        (cache / "x").write_text("x")
        subprocess.run(["git", "init", "-q"], check=True)
        subprocess.run(["git", "add", "-A"], check=True)
    ended = run("check")
    assert ended.code == 0
    assert ended.err.count("gradprobe: warning: ") >= 1
    assert not os.listdir(elsewhere)
    assert not [path for path in entries() if path.is_file()]


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("home", ["none", "relative", "damaged"])
def test_without_a_secret_of_one_s_own_there_is_no_cache(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    state = folder / "state"
    if home == "damaged":
        (state / "gradprobe").mkdir(parents=True)
        (state / "gradprobe" / "secret").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", {"damaged": str(state), "relative": "state"}.get(home, ""))
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])  # as in many a container
    ended = run("check")
    assert ended.code == 0
    assert "no cache" in ended.err
    assert not Path(".gradprobe_cache").exists()
    assert home == "damaged" or not state.exists()
