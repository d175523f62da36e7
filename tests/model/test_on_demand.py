"""A Hugging Face model whose rows have their numbers only while they run."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from helpers.places import CONFIGS

pytest.importorskip("transformers")

import torch

from gradprobe.errors import InputError
from gradprobe.measure.measurement import Measurement
from gradprobe.measure.take import take
from gradprobe.model.make import make
from gradprobe.model.on_demand import parts_of, settle
from gradprobe.model.rows import parameters_of
from gradprobe.model.subject import Subject
from gradprobe.spec.options import Limits, ProbeOptions
from gradprobe.tasks.targets import load_target
from gradprobe.worker.run import measure_target

OPTIONS = ProbeOptions(dtype="float64", batch_size=2, stream=True)


def subject_of(name: str, options: ProbeOptions = OPTIONS) -> Subject:
    spec = load_target(str(CONFIGS / name))
    return make(spec, options)  # type: ignore[arg-type]


def settled(name: str, options: ProbeOptions = OPTIONS) -> Subject:
    subject = subject_of(name, options)
    settle(subject.model)
    assert not any(p.is_meta for p in subject.model.parameters())
    return subject


def rounded(measurement: Measurement) -> str:
    """Its text, with six digits of each number."""
    return re.sub(r"\d+\.\d+(e-\d+)?", lambda match: f"{float(match[0]):.6g}", repr(measurement))


@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "gpt2",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("bert", "vit", "mamba", "resnet")),
    ],
)
def test_every_number_is_that_of_the_same_model_in_memory(name: str) -> None:
    assert repr(take(subject_of(name), OPTIONS)) == repr(take(settled(name), OPTIONS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_what_several_rows_read_is_summed_up_in_another_order(name: str) -> None:
    assert rounded(take(subject_of(name), OPTIONS)) == rounded(take(settled(name), OPTIONS))


def test_what_is_local_to_a_block_is_that_of_the_same_model_in_memory() -> None:
    options = replace(OPTIONS, blocks=True, attention=True, precision=True)
    subjects = subject_of("gpt2", options), settled("gpt2", options)
    own, other = (take(subject, options) for subject in subjects)
    assert own.profile.rows[3].attention is not None
    assert own.profile.rows[3].jacobian is not None
    assert own == other


@pytest.mark.slow
def test_float32_and_dropout_are_those_of_the_model_in_memory() -> None:
    options = replace(OPTIONS, dtype=None)
    assert take(subject_of("gpt2", options), options) == take(settled("gpt2", options), options)


def test_a_row_is_made_from_the_seed_of_its_path() -> None:
    subject = subject_of("llama")
    numbers = dict(settled("llama").model.named_parameters())
    part = next(p for p in parts_of(subject.model.modules()) if p.path == "model.layers.1")
    for _ in range(2):
        with part.weights():
            for name, parameter in parameters_of(part.module, f"{part.path}."):
                assert torch.equal(parameter, numbers[name])
    assert all(parameter.is_meta for parameter in part.module.parameters())
    other = settled("llama", replace(OPTIONS, seed=1)).model.get_parameter("lm_head.weight")
    assert not torch.equal(numbers["lm_head.weight"], other)


def test_tied_weights_stay_in_memory_and_position_encodings_are_right() -> None:
    model = subject_of("gpt2").model
    assert not model.get_parameter("lm_head.weight").is_meta
    assert model.get_parameter("lm_head.weight") is model.get_parameter("transformer.wte.weight")
    own, other = (
        subject_of("llama").model,
        make(load_target(str(CONFIGS / "llama")), replace(OPTIONS, stream=False)).model,
    )  # type: ignore[arg-type]
    buffers = dict(other.named_buffers())
    assert buffers
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in own.named_buffers())


def test_what_does_not_fit_is_streamed_on_its_own_down_to_one_block() -> None:
    spec = load_target(str(CONFIGS / "llama"))
    options = ProbeOptions(batch_size=2)
    whole = sum(p.numel() for p in settled("llama").model.parameters()) * 8
    limited = replace(options, limits=Limits(memory=whole - 1))
    streamed = measure_target(spec, replace(options, stream=True)).profile
    assert measure_target(spec, limited).profile == streamed
    with pytest.raises(InputError, match="weights and gradients would take"):
        measure_target(spec, replace(limited, deep=True))
    with pytest.raises(InputError, match="--deep needs the whole model, and --stream"):
        measure_target(spec, replace(options, deep=True, stream=True))
    with pytest.raises(InputError, match="those of one block would take"):
        measure_target(spec, replace(options, limits=Limits(memory=1000)))
