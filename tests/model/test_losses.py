"""The named losses, against torch's own and against what they promise."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.commands import Result
from torch import Tensor, nn

import gradprobe
from gradprobe.model.losses import LOSSES, cross_entropy, mse, projection
from gradprobe.model.tensors import first_tensor

F64 = torch.float64


def randn(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def gradient(loss: Callable[..., Tensor], output: Tensor, labels: Tensor | None = None) -> Tensor:
    leaf = output.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf, labels, 0), leaf)
    return found


SHAPES = [(4, 3), (4, 5, 3), (4, 3, 5, 6), (1, 1)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_loss_is_a_scalar_that_the_seed_fixes(name: str, shape: tuple[int, ...]) -> None:
    loss, output = LOSSES[name], randn(*shape)
    values = [loss(output, None, seed) for seed in (0, 0, 1)]
    assert values[0].shape == ()
    assert values[0] == values[1]
    if output.numel() > 3 or name == "mse":
        assert values[0] != values[2]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_leaves_the_global_random_state_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    LOSSES[name](randn(4, 3), None, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_means_the_same_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    output = randn(6, 5)
    exact, rounded = (LOSSES[name](y, None, 0) for y in (output, output.to(dtype)))
    assert float(rounded) == pytest.approx(float(exact), rel=0.05, abs=0.01)


# ---- projection


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_of_a_projection_at_the_output_has_norm_one(shape: tuple[int, ...]) -> None:
    assert float(gradient(projection, randn(*shape)).norm()) == pytest.approx(1, rel=1e-6)


def test_a_projection_is_linear_in_the_output() -> None:
    a, b = randn(4, 3), randn(8, 3)[4:]
    value = projection(2 * a - 3 * b, None, 0)
    assert value == pytest.approx(2 * projection(a, None, 0) - 3 * projection(b, None, 0))


def test_the_direction_does_not_depend_on_the_output() -> None:
    assert torch.equal(gradient(projection, randn(4, 3)), gradient(projection, 5 + randn(4, 3)))


def test_a_probe_with_the_default_loss_has_norm_one_at_its_last_row(parse: Callable) -> None:
    spec = parse("input: {shape: [5]}\nlayers: [Linear: {out_features: 4}, Tanh]")
    assert gradprobe.probe(spec).rows[-1].gradient_norm == pytest.approx(1, rel=1e-6)


# ---- cross entropy


@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((4, 3), (4,)),
        ((4, 5, 3), (4, 5)),
        ((4, 3, 5, 6), (4, 5, 6)),
        ((2, 3, 2, 2, 2), (2, 2, 2, 2)),
    ],
)
def test_cross_entropy_is_torch_s_with_classes_where_they_belong(
    shape: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    output = randn(*shape)
    target = torch.arange(torch.Size(labels).numel()).reshape(labels) % 3
    logits = output.movedim(2, 1) if len(shape) == 3 else output  # torch has classes second
    assert cross_entropy(output, target, 0) == pytest.approx(F.cross_entropy(logits, target))


def test_the_gradient_of_cross_entropy_is_probability_less_truth_over_the_batch() -> None:
    output, target = randn(4, 3), torch.tensor([0, 2, 1, 0])
    expected = (output.softmax(1) - F.one_hot(target, 3)) / 4
    assert torch.allclose(gradient(cross_entropy, output, target), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_labels_may_be_integers_of_any_width(dtype: torch.dtype) -> None:
    target = torch.tensor([0, 2, 1, 0])
    expected = cross_entropy(randn(4, 3), target, 0)
    assert cross_entropy(randn(4, 3), target.to(dtype), 0) == expected
    assert cross_entropy(randn(4, 3), target.to(dtype)[:, None], 0) == expected


def test_without_labels_every_class_is_drawn() -> None:
    g = gradient(cross_entropy, torch.zeros(500, 4, dtype=F64))
    assert (g < 0).sum(0).tolist() == pytest.approx([125] * 4, abs=30)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 1, 2, 3]), "outside the 3 classes"),
        (torch.tensor([0, 1, 2, -1]), "outside the 3 classes"),
        (torch.tensor([0.0, 1.0, 2.0, 0.0]), "4 integer labels"),
        (torch.tensor([0, 1, 2]), "4 integer labels"),
        (torch.zeros(4, 3, dtype=torch.long), "4 integer labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor, words: str) -> None:
    with pytest.raises(gradprobe.InputError, match=words):
        cross_entropy(randn(4, 3), labels, 0)


def test_a_label_of_minus_a_hundred_does_not_count() -> None:
    output, labels = randn(4, 3), torch.tensor([0, -100, 2, -100])
    assert cross_entropy(output, labels, 0) == F.cross_entropy(output, labels)
    with pytest.raises(gradprobe.InputError, match="every label is -100"):
        cross_entropy(output, torch.full((4,), -100), 0)


# ---- mean squared error


@pytest.mark.parametrize(
    ("shape", "labels"), [((4, 3), (4, 3)), ((4, 1), (4,)), ((4, 2, 3), (4, 6))]
)
def test_mse_is_torch_s_with_targets_of_the_output_s_shape(
    shape: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    output, target = randn(*shape), 1 + randn(*labels)
    assert mse(output, target, 0) == pytest.approx(F.mse_loss(output, target.reshape(shape)))


def test_mse_takes_integer_and_float32_targets() -> None:
    target = torch.arange(4)[:, None]
    expected = F.mse_loss(randn(4, 1), target.double())
    for given in (target, target.float(), target.flatten()):
        assert mse(randn(4, 1), given, 0) == pytest.approx(expected)


def test_without_targets_mse_has_standard_normal_ones() -> None:
    output = torch.zeros(200, 50, dtype=F64)
    assert float(mse(output, None, 0)) == pytest.approx(1, rel=0.05)


def test_targets_of_another_size_are_refused() -> None:
    with pytest.raises(gradprobe.InputError, match=r"targets of shape \[3\]"):
        mse(randn(4, 3), randn(4, 2), 0)


# ---- which loss a probe takes

SPEC = "input: {shape: [5]}\nlayers: [Linear: {out_features: 4}, Tanh, Linear: {out_features: 4}]\n"


def test_the_option_wins_over_the_spec_and_the_spec_over_the_default(
    run: Callable[..., Result], tmp_path: Any
) -> None:
    path = tmp_path / "net.yaml"
    used = []
    for text, options in (
        (SPEC, []),
        (SPEC + "loss: mse\n", []),
        (SPEC + "loss: mse\n", ["--loss", "cross_entropy"]),
        (SPEC + "loss: mse\n", ["--loss", "projection"]),
    ):
        path.write_text(text)
        out = run("probe", path, *options).out
        used.append(next(word for word in LOSSES if f"{word} loss" in out))
    assert used == ["projection", "mse", "cross_entropy", "projection"]


@pytest.mark.parametrize("name", LOSSES)
def test_a_spec_and_its_module_agree_under_each_loss(parse: Callable, name: str) -> None:
    from gradprobe.model.batch import random_batch
    from gradprobe.model.build import build

    spec = parse(SPEC + f"loss: {name}\n")
    x = random_batch(spec.input, 32, 0).inputs
    by_module = gradprobe.probe(build(spec), x, loss=name).profile
    assert by_module.loss == gradprobe.tasks.probe.probe_target(spec).profile.loss


def test_a_loss_that_is_named_wins_over_the_spec_s_own(parse: Callable) -> None:
    spec = parse(SPEC + "loss: mse\n")
    assert gradprobe.probe(spec).config["loss"] == "mse"
    for name in LOSSES:
        assert gradprobe.probe(spec, loss=name).config["loss"] == name


def test_probe_takes_a_function_of_the_whole_output() -> None:
    class Two(nn.Linear):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"a": super().forward(x), "b": super().forward(2 * x)}

    seen: list[Any] = []

    def loss(output: dict[str, Tensor]) -> Tensor:
        seen.append(sorted(output))
        return output["b"].sum()

    gradprobe.probe(Two(3, 2), torch.randn(4, 3), loss=loss)
    assert seen == [["a", "b"]]


@pytest.mark.parametrize("model", ["module", "spec"])
def test_an_unknown_loss_is_refused_with_the_nearest(parse: Callable, model: str) -> None:
    subject, inputs = (
        (nn.Linear(3, 3), torch.randn(2, 3)) if model == "module" else (parse(SPEC), None)
    )
    with pytest.raises(gradprobe.InputError, match="did you mean 'mse'"):
        gradprobe.probe(subject, inputs, loss="msee")


# ---- the first tensor of an output

Pair = namedtuple("Pair", "words logits")


@dataclass
class Output:
    loss: Tensor | None = None
    logits: Tensor | None = None


T = torch.ones(2)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (T, True),
        ((T, torch.zeros(2)), True),
        ([[], [None, (T,)]], True),
        ({"words": "x", "logits": T}, True),
        (Pair("x", T), True),
        (Output(None, T), True),
        ({"a": {"b": [Output(None, T)]}}, True),
        ((torch.ones(2, dtype=torch.int64), T), True),
        (torch.ones(2, dtype=torch.int64), False),
        ("words", False),
        (None, False),
        ([], False),
        (torch.ones(2, dtype=torch.bool), False),
    ],
)
def test_the_first_floating_tensor_of_any_output(value: Any, found: bool) -> None:
    assert first_tensor(value) is (T if found else None)
