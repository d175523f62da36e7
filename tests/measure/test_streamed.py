"""A network that is made one block at a time measures as the same network in memory does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import gradprobe
from gradprobe.errors import InputError
from gradprobe.measure.measurement import Measurement
from gradprobe.measure.one_pass import measure
from gradprobe.measure.passes import gradients_of
from gradprobe.measure.progress import Step, listening
from gradprobe.measure.streamed import Replay
from gradprobe.model.build import build
from gradprobe.model.make import make
from gradprobe.model.streamed import Streamed
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.options import Limits, ProbeOptions
from gradprobe.spec.sources import yaml
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.tasks.targets import load_spec
from gradprobe.worker.run import measure_target
from tests.helpers.commands import Run

CONVOLUTIONS = """\
input: {shape: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 8, kernel_size: 3, padding: 1}
  - repeat:
      times: 3
      layers: [residual: [BatchNorm2d, ReLU, Conv2d: {out_channels: 8, kernel_size: 3, padding: 1}]]
  - Flatten
  - Linear: {out_features: 4}
loss: cross_entropy
"""
ATTENTION = """\
input: {shape: [6], tokens: 30}
layers:
  - Embedding: {embedding_dim: 16}
  - repeat: {times: 2, layers: [TransformerEncoderLayer: {nhead: 2, causal: true}]}
  - Linear: {out_features: 30}
"""
RECURRENT = """\
input: {shape: [9, 8]}
layers: [LSTM: {hidden_size: 8}, Dropout, RNN: {hidden_size: 8}, Linear: {out_features: 3}]
"""
WIDE = """\
input: {shape: [300]}
layers:
  - Linear: {out_features: 520}
  - repeat: {times: 3, layers: [Linear: {out_features: 520}, Dropout: {p: 0.1}, Sigmoid]}
"""
ZEROS = """\
input: {shape: [16]}
layers:
  - Linear: {out_features: 16}
  - repeat:
      times: 4
      layers: [residual: {layers: [Linear: {out_features: 16}, Dropout], zero_init: true}]
  - Linear: {out_features: 4, init: {weight: zeros, bias: zeros}}
"""
OVERFLOW = """\
input: {shape: [16]}
layers:
  - repeat: {times: 40, layers: [Linear: {out_features: 16}, ReLU]}
init: {Linear: {weight: {normal: {std: 30}}}}
"""
SPECS = {
    "convolutions": CONVOLUTIONS,
    "attention": ATTENTION,
    "recurrent": RECURRENT,
    "one row a segment": WIDE,
    "zeros": ZEROS,
    "overflow": OVERFLOW,
}


def parse(text: str) -> NetworkSpec:
    return yaml.parse(text.encode(), "spec.yaml")


def measured(spec: NetworkSpec, stream: bool, **options: object) -> Measurement:
    options = {"batch_size": 4, **options}
    return measure_target(spec, ProbeOptions(stream=stream, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", SPECS)
def test_every_number_is_that_of_the_network_in_memory(name: str, dtype: str) -> None:
    spec = parse(SPECS[name])
    assert repr(measured(spec, True, dtype=dtype)) == repr(measured(spec, False, dtype=dtype))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convolutions", {"blocks": True, "precision": True}),
        ("attention", {"attention": True}),
        ("recurrent", {"by": "position"}),
    ],
)
def test_what_is_local_to_a_block_is_that_of_the_network_in_memory(
    name: str, options: dict[str, object]
) -> None:
    spec = parse(SPECS[name])
    assert repr(measured(spec, True, **options)) == repr(measured(spec, False, **options))


@pytest.mark.parametrize("name", ["convolutions", "one row a segment"])
def test_a_second_look_is_that_at_the_network_in_memory(name: str) -> None:
    spec = parse(SPECS[name])
    own, other = (measured(spec, stream, deep=True) for stream in (True, False))
    assert own.look is not None
    assert repr(own) == repr(other)


def test_a_row_that_is_moved_is_that_of_the_network_after_a_step() -> None:
    """Each row, and the gradients of all, are those of the network in memory, moved at once."""
    spec = parse(CONVOLUTIONS)
    streamed, whole = (make(spec, ProbeOptions(stream=s, dtype="float64")) for s in (True, False))
    assert isinstance(streamed.model, Streamed)
    replay = Replay(streamed.model, streamed.args[0], streamed.loss)

    def descend(module: nn.Module, root: Tensor | None) -> None:
        weights = list(module.parameters())
        for weight, gradient in zip(weights, gradients_of(root, weights), strict=True):
            assert gradient is not None
            weight.data -= 0.1 * gradient

    moved = replay.moved(lambda index, module: descend(module, replay.root(index, module)[1]))
    descend(whole.model, whole.loss(whole.model(*whole.args)))
    for index, row in enumerate(whole.rows):
        pairs = zip(moved.made(index).parameters(), row.module.parameters(), strict=True)
        assert all(torch.allclose(own, other, rtol=1e-12, atol=0) for own, other in pairs)
    after = measure(replace(streamed, model=moved), "blocks")
    assert after.reach == pytest.approx(measure(whole, "blocks").reach, rel=1e-9)
    assert after.reach != pytest.approx(measure(streamed, "blocks").reach, rel=1e-3)


def test_a_deep_stack_is_streamed_in_segments_of_many_rows() -> None:
    spec = load_spec("residual", StackOptions(depth=150, width=16))
    assert repr(measured(spec, True)) == repr(measured(spec, False))


def test_a_row_that_is_made_again_is_the_same_to_the_bit() -> None:
    spec = parse(CONVOLUTIONS)
    network = make(spec, ProbeOptions(stream=True)).model
    assert isinstance(network, Streamed)
    assert all(p.is_meta for p in network.parameters())
    state = torch.random.get_rng_state()
    for index, row in enumerate(build(spec).rows):
        for made in (network.made(index), network.made(index)):
            pairs = zip(made.parameters(), row.module.parameters(), strict=True)
            assert all(torch.equal(own, other) for own, other in pairs)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_does_not_fit_is_streamed_on_its_own() -> None:
    spec = parse(WIDE)
    limits = Limits(memory=3 << 20)
    options = ProbeOptions(batch_size=4, limits=limits)
    assert isinstance(make(spec, options, streams=True).model, Streamed)
    assert measure_target(spec, options).profile == measured(spec, False).profile
    with pytest.raises(InputError, match="parameters need"):
        measure_target(spec, replace(options, level="leaves"))


def test_a_block_that_does_not_fit_is_refused_with_its_line() -> None:
    options = ProbeOptions(batch_size=4, stream=True, limits=Limits(memory=1 << 20))
    with pytest.raises(InputError, match="one block of 270,920 parameters needs") as error:
        measure_target(parse(WIDE), options)
    assert error.value.place is not None
    assert error.value.place.line == 4


def test_a_layer_that_overwrites_its_input_is_refused() -> None:
    spec = parse(CONVOLUTIONS.replace("ReLU", "ReLU: {inplace: true}"))
    with pytest.raises(InputError, match="ReLU cannot overwrite its input"):
        measured(spec, True)


@pytest.mark.parametrize("option", ["--lr=0.1", "--overfit", "--level=leaves"])
def test_what_needs_the_whole_network_is_refused(run: Run, option: str) -> None:
    result = run("probe", "residual", "--stream", option)
    assert result.code == 2
    assert "needs the whole network, and --stream makes one block at a time" in result.err


def test_a_module_is_in_memory_already() -> None:
    with pytest.raises(InputError, match=": stream is for specs"):
        gradprobe.probe(torch.nn.Linear(3, 3), torch.randn(2, 3), stream=True)


def test_who_listens_is_told_of_each_segment() -> None:
    steps: list[Step] = []
    with listening(steps.append):
        measured(parse(WIDE), True)
    assert [(step.rows, step.backward) for step in steps] == [
        *((rows, False) for rows in (2, 3, 4)),
        *((rows, True) for rows in (1, 2, 4)),
    ]
    assert steps[-1].share == 1
    assert Step(10, 1000).words(60.0) == "row 10 of 1,000 forward, 249 min left"
    assert Step(999, 1000, backward=True).words(60.0) == "row 999 of 1,000 backward, 0 s left"
