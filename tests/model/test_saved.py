"""A checkpoint that is read block by block measures as the one that is read as a whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.places import CONFIGS
from safetensors.torch import save_file

from gradprobe.errors import InputError
from gradprobe.model.build import build
from gradprobe.model.make import make
from gradprobe.model.streamed import Streamed
from gradprobe.spec.network import ArchitectureSpec, NetworkSpec, Weights
from gradprobe.spec.options import Limits, ProbeOptions
from gradprobe.spec.sources import yaml
from gradprobe.tasks.targets import load_target
from gradprobe.worker.run import measure_target

SPEC = """\
input: {shape: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - repeat:
      times: 2
      layers: [residual: [BatchNorm2d, ReLU, Conv2d: {out_channels: 4, kernel_size: 1}]]
  - Flatten
  - Linear: {out_features: 4}
"""
OPTIONS = ProbeOptions(batch_size=4)
STREAMED = replace(OPTIONS, stream=True)


def saved_spec(tmp_path: Path) -> NetworkSpec:
    """Another seed's numbers, half of them in bfloat16, behind a prefix."""
    spec = yaml.parse(SPEC.encode(), "spec.yaml")
    state = {f"net.{key}": tensor for key, tensor in build(spec, seed=7).state_dict().items()}
    state |= {key: t.bfloat16() for key, t in state.items() if key.endswith("bias")}
    names = sorted(state)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: state[key].contiguous() for key in keys}, tmp_path / file)
    places = {key: file for file, keys in shards.items() for key in keys}
    index = tmp_path / "net.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return replace(spec, weights=Weights(str(index), "net."))


def test_a_spec_has_the_numbers_of_the_file(tmp_path: Path) -> None:
    spec = saved_spec(tmp_path)
    measured = measure_target(spec, STREAMED)
    assert measured == measure_target(spec, OPTIONS)
    assert measured.profile != measure_target(replace(spec, weights=None), OPTIONS).profile
    assert measured.config["weights_prefix"] == "net."


def test_a_spec_s_norm_may_lack_its_counter(tmp_path: Path) -> None:
    spec = saved_spec(tmp_path)
    index = tmp_path / "net.index.json"
    places = json.loads(index.read_text())["weight_map"]
    kept = {key: file for key, file in places.items() if not key.endswith("num_batches_tracked")}
    assert kept != places
    index.write_text(json.dumps({"weight_map": kept}))
    assert measure_target(spec, STREAMED) == measure_target(spec, OPTIONS)


def test_what_does_not_fit_is_read_block_by_block_on_its_own(tmp_path: Path) -> None:
    spec = saved_spec(tmp_path)
    options = replace(OPTIONS, limits=Limits(memory=30_000))
    assert isinstance(make(spec, options, streams=True).model, Streamed)
    assert measure_target(spec, options).profile == measure_target(spec, OPTIONS).profile


def test_keys_that_do_not_fit_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    spec = saved_spec(tmp_path)
    other = yaml.parse(SPEC.replace("times: 2", "times: 3").encode(), "spec.yaml")
    with pytest.raises(InputError, match="does not fit the network: 6 keys missing") as error:
        measure_target(replace(other, weights=spec.weights), STREAMED)
    assert error.value.details[0].startswith("missing: 1.2.0.weight [4]")


def test_what_is_read_as_a_whole_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    spec = yaml.parse(SPEC.encode(), "spec.yaml")
    with pytest.raises(InputError, match="is read as a whole"):
        measure_target(replace(spec, weights=Weights("x.pt")), STREAMED)
    damaged = tmp_path / "x.safetensors"
    damaged.write_bytes(b"x" * 100)
    with pytest.raises(InputError, match=r"is not a readable \.safetensors file"):
        measure_target(replace(spec, weights=Weights(str(damaged))), STREAMED)
    with pytest.raises(InputError, match="cannot read"):
        measure_target(replace(spec, weights=Weights(str(tmp_path / "none.safetensors"))), STREAMED)


@pytest.mark.parametrize("name", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_model_of_parts_has_the_numbers_of_the_file(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    spec = load_target(str(CONFIGS / name))
    assert isinstance(spec, ArchitectureSpec)
    options = ProbeOptions(batch_size=2, dtype="float64")
    model = make(spec, replace(options, seed=5)).model
    state = {key: t.clone() for key, t in model.state_dict().items() if key != "lm_head.weight"}
    if "gpt2" not in name:  # whose head is the embedding
        state["lm_head.weight"] = torch.zeros_like(model.get_parameter("lm_head.weight"))
    save_file(state, tmp_path / "x.safetensors")
    spec = replace(spec, weights=Weights(str(tmp_path / "x.safetensors")))
    rows = [measure_target(spec, replace(options, stream=s)).profile.rows for s in (True, False)]
    for streamed, whole in zip(*rows, strict=True):
        assert streamed.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-9)
        assert [p.norm for p in streamed.parameters] == [p.norm for p in whole.parameters]
