"""The probe leaves its subject as it was, and gets the models right that fool simpler probes."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.handmade import near
from helpers.unchanged import Everything, everything, tensors_in, unchanged
from torch import Tensor, nn

import gradprobe
from gradprobe.measure.profile import RowStatus
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.stack import load as load_stack
from gradprobe.verdict.report import Severity


def raising(output: Tensor) -> Tensor:
    raise RuntimeError("the loss raises")


@pytest.mark.parametrize("level", ["blocks", "leaves"])
@pytest.mark.parametrize("ending", ["well", "forward raises", "loss raises"])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_changed(ending: str, level: str, training: bool) -> None:
    model, x = everything()
    model.train(training)
    model.norm.train(not training)
    model.fails = ending == "forward raises"
    loss = raising if ending == "loss raises" else "projection"
    with unchanged(model, x):
        if ending == "well":
            gradprobe.probe(model, x, loss=loss, level=level)
        else:
            with pytest.raises(gradprobe.ModelError, match=ending.split()[0]):
                gradprobe.probe(model, x, loss=loss, level=level)


def test_the_check_itself_sees_a_change() -> None:
    changes: list[Callable[[Everything, Tensor], Any]] = [
        lambda model, x: model.stem.weight.data.add_(1),
        lambda model, x: model.norm.running_mean.add_(1),
        lambda model, x: model.norm.train(),
        lambda model, x: model.stem.weight.grad.add_(1),
        lambda model, x: setattr(model.stem.weight, "grad", None),
        lambda model, x: model.stem.requires_grad_(False),
        lambda model, x: model.stem.register_forward_hook(print),
        lambda model, x: model.stem.weight.register_hook(print),
        lambda model, x: x.data.add_(1),
        lambda model, x: torch.rand(1),
        lambda model, x: random.random(),
        lambda model, x: np.random.rand(),
    ]
    for change in changes:
        model, x = everything()
        with pytest.raises(AssertionError), unchanged(model, x):
            change(model, x)


# ---- one by one


class Pair(NamedTuple):
    x: Tensor
    count: int


def lin(width: int = 4) -> nn.Linear:
    return nn.Linear(width, width)


def test_batch_norm_statistics_stay_in_train_mode() -> None:
    model = nn.Sequential(lin(), nn.BatchNorm1d(4), nn.ReLU(), lin())
    x = torch.randn(8, 4)
    with unchanged(model, x):
        gradprobe.probe(model, x)
    assert model[1].num_batches_tracked == 0


def test_batch_norm_is_measured_in_the_mode_that_it_is_in() -> None:
    model = nn.Sequential(lin(), nn.BatchNorm1d(4), lin(), lin())
    x = 3 + torch.randn(8, 4)
    train = gradprobe.probe(model, x).rows[1].activation_rms
    evaluated = gradprobe.probe(model.eval(), x).rows[1].activation_rms
    assert train == pytest.approx(1, rel=1e-3)
    assert abs(evaluated - 1) > 0.05


def test_buffers_that_the_forward_leaves_alone_are_not_written() -> None:
    model = nn.Sequential(lin(), nn.BatchNorm1d(4).eval(), lin())
    versions = [buffer._version for buffer in model.buffers()]
    gradprobe.probe(model, torch.randn(3, 4))
    assert [buffer._version for buffer in model.buffers()] == versions


@pytest.mark.parametrize("mode", [True, False])
def test_each_submodule_keeps_its_own_mode(mode: bool) -> None:
    model = nn.Sequential(lin(), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(4), lin()), lin())
    model.train(mode)
    model[2][0].train(not mode)
    x = torch.randn(5, 4)
    with unchanged(model, x):
        gradprobe.probe(model, x)


def test_existing_gradients_are_the_same_objects_with_the_same_values() -> None:
    model, x = nn.Sequential(lin(), lin(), lin()), torch.randn(3, 4)
    model[1].weight.grad = kept = torch.randn(4, 4)
    with unchanged(model, x):
        gradprobe.probe(model, x)
    assert model[1].weight.grad is kept
    assert model[0].weight.grad is None


def test_inputs_that_want_a_gradient_get_none() -> None:
    model, x = nn.Sequential(lin(), lin()), torch.randn(3, 4, requires_grad=True)
    with unchanged(model, x):
        gradprobe.probe(model, x)
    assert x.grad is None


@pytest.mark.parametrize("source", ["torch", "random", "numpy"])
def test_the_global_random_state_is_neither_used_up_nor_seeded(source: str) -> None:
    draw = {"torch": torch.rand, "random": lambda n: random.random(), "numpy": np.random.rand}
    model, x = nn.Sequential(lin(), nn.Dropout(), lin()), torch.randn(3, 4)
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(5)
    expected = draw[source](1)
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(5)
    gradprobe.probe(model, x)
    assert draw[source](1) == expected


def test_the_global_random_state_does_not_show_in_the_report() -> None:
    model, x = nn.Sequential(lin(), nn.Dropout(), lin(), lin()), torch.randn(3, 4)
    reports = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        reports.append(gradprobe.probe(model, x).profile)
    assert reports[0] == reports[1]


def test_a_spec_leaves_the_random_states_alone(parse: Callable) -> None:
    spec = parse("input: {shape: [4]}\nlayers: [Linear: {out_features: 4}, Dropout]")
    with unchanged(nn.Identity()):
        gradprobe.probe(spec)


@pytest.mark.parametrize(
    "inputs",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: {"x": x},
        lambda x: ([x],),
        lambda x: ({"inner": (x,)},),
        lambda x: {"x": {"inner": x}},
        lambda x: (Pair(x, 3),),
    ],
    ids=["tensor", "tuple", "keyword", "list", "dict in tuple", "dict in keyword", "named tuple"],
)
@pytest.mark.parametrize("integers", [False, True])
def test_inputs_that_the_model_overwrites_stay_as_they_were(
    inputs: Callable[[Tensor], Any], integers: bool
) -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = lin(), lin()

        def forward(self, x: Any) -> Tensor:
            [tensor] = tensors_in(x)
            tensor += 1
            return self.b(self.a(tensor.to(torch.float32)))

    x = torch.arange(8).reshape(2, 4) if integers else torch.randn(2, 4)
    given = inputs(x)
    model = Overwrites()
    with unchanged(model, given):
        gradprobe.probe(model, given)


def test_a_buffer_that_the_forward_creates_is_gone_afterwards() -> None:
    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = lin()
            self.register_buffer("cache", None)

        def forward(self, x: Tensor) -> Tensor:
            if self.cache is None:
                self.cache = x.mean(0)
                self.register_buffer("table", torch.ones(3))
            return self.fc(x)

    model, x = nn.Sequential(Cache(), lin(), lin()), torch.randn(3, 4)
    with unchanged(model, x):
        gradprobe.probe(model, x)
    assert model[0].cache is None


def test_records_of_any_kind_and_a_generator_of_the_model_s_own_are_as_they_were() -> None:
    class Records(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.draws = lin(), torch.Generator()
            self.last, self.counts = deque([0], maxlen=3), Counter(calls=1)
            self.groups, self.nested = defaultdict(list, a=[1]), {"sizes": [[1]]}

        def forward(self, x: Tensor) -> Tensor:
            self.last.append(1)
            self.counts["calls"] += 1
            self.groups["b"].append(self.groups["a"].pop())
            self.nested["sizes"][0].append(len(x))
            y: Tensor = self.fc(x) * torch.rand(4, generator=self.draws)
            return y

    model = nn.Sequential(Records(), lin(), lin())
    records = model[0]
    before = copy.deepcopy([records.last, records.counts, records.groups, records.nested])
    state = records.draws.get_state()
    gradprobe.probe(model, torch.randn(3, 4), deep=True)
    assert [records.last, records.counts, records.groups, records.nested] == before
    assert torch.equal(records.draws.get_state(), state)


@pytest.mark.parametrize("targets", [False, True])
def test_a_loss_with_a_state_of_its_own_is_as_it_was(targets: bool) -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("centre", torch.zeros(4))

        def forward(self, output: Tensor) -> Tensor:
            self.centre.lerp_(output.detach().mean(0), 0.1)
            return (output - self.centre).square().mean()

    class Held(Centred):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return super().forward(output - target)

    loss, x = Held() if targets else Centred(), torch.randn(3, 4)
    model, inputs = nn.Sequential(lin(), lin(), lin()), (x, x) if targets else x
    gradprobe.probe(model, inputs, loss=loss, overfit=True)
    assert not loss.centre.any()


def test_the_generators_of_all_devices_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = torch.Generator(), torch.Generator()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", devices)
    before = [generator.get_state() for generator in devices]
    gradprobe.probe(nn.Sequential(lin(), lin(), lin()), torch.randn(3, 4))
    assert all(torch.equal(g.get_state(), s) for g, s in zip(devices, before, strict=True))


def test_an_embedding_with_max_norm_keeps_its_weight() -> None:
    embedding = nn.Embedding(9, 4, max_norm=0.1)
    model, x = nn.Sequential(embedding, lin(), lin()), torch.arange(9).reshape(3, 3)
    before = embedding.weight.detach().clone()
    gradprobe.probe(model, x)
    assert torch.equal(embedding.weight, before)


def test_spectral_norm_keeps_its_vectors() -> None:
    layer = nn.utils.parametrizations.spectral_norm(lin())
    model, x = nn.Sequential(layer, lin(), lin()), torch.randn(3, 4)
    with unchanged(model, x):
        report = gradprobe.probe(model, x)
    assert report.rows[0].gradient_norm


def test_the_user_s_hooks_on_parameters_are_still_there() -> None:
    model, x = nn.Sequential(lin(), lin(), lin()), torch.randn(3, 4)
    seen: list[Tensor] = []
    model[0].weight.register_hook(seen.append)
    with unchanged(model, x):
        gradprobe.probe(model, x)
    assert model[0].weight._backward_hooks
    model(x).sum().backward()
    assert seen


def test_an_optimizer_in_the_backward_pass_does_not_step() -> None:
    model, x = nn.Sequential(lin(), lin(), lin()), torch.randn(3, 4)
    for parameter in model.parameters():
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        parameter.register_post_accumulate_grad_hook(lambda _, o=optimizer: o.step())
    with unchanged(model, x):
        gradprobe.probe(model, x)


def test_a_row_that_hands_out_its_own_parameter_gets_no_hook() -> None:
    class Position(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(200, 200))

        def forward(self) -> Tensor:
            return self.weight

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position, self.a, self.b = Position(), lin(200), nn.Linear(200, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x + self.position()))

    model, x = Model(), torch.randn(2, 200, 200)
    with unchanged(model, x):
        gradprobe.probe(model, x)


def test_outputs_that_the_model_keeps_carry_no_hook_of_the_probe() -> None:
    kept: list[Tensor] = []  # outside of the model, whose own attributes are as they were

    class Keeps(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            kept.append(super().forward(x))
            return kept[-1]

    model = nn.Sequential(lin(200), Keeps(200, 200), lin(200))
    gradprobe.probe(model, torch.randn(200, 200))
    assert kept
    assert not any(output._backward_hooks for output in kept)


def test_probing_twice_and_training_afterwards_work_as_if_never_probed() -> None:
    twins, x = [], torch.randn(6, 4)
    for probes in (0, 2):
        torch.manual_seed(3)
        model = nn.Sequential(lin(), nn.BatchNorm1d(4), nn.Dropout(0.3), lin(), lin())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(probes):
            gradprobe.probe(model, x)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        twins.append(model.state_dict())
    assert all(torch.equal(twins[0][key], twins[1][key]) for key in twins[0])


def test_a_model_under_no_grad_is_probed_all_the_same() -> None:
    model, x = nn.Sequential(lin(), lin(), lin()), torch.randn(3, 4)
    expected = gradprobe.probe(model, x).profile
    with torch.no_grad():
        assert gradprobe.probe(model, x).profile == expected
        assert not torch.is_grad_enabled()


def test_a_model_under_inference_mode_is_probed_all_the_same() -> None:
    model = nn.Sequential(lin(), nn.BatchNorm1d(4), lin(), lin())
    x = torch.randn(3, 4)
    expected = gradprobe.probe(model, x).profile
    with torch.inference_mode():
        within = x + 0
        assert gradprobe.probe(model, x).profile == expected
        assert gradprobe.probe(model, within).profile == expected
        assert torch.is_inference_mode_enabled()
    assert gradprobe.probe(model, within).profile == expected


@pytest.mark.parametrize("option", ["loss", "deep", "blocks", "overfit"])
def test_what_is_drawn_does_not_depend_on_torch_s_default_device(option: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 80), nn.Linear(80, 80), nn.Linear(80, 2))
    x, options = torch.randn(6, 4), {option: "mse" if option == "loss" else True}
    expected = gradprobe.probe(model, x, **options)
    with torch.device("meta"):
        report = gradprobe.probe(model, x, **options)
        built = gradprobe.probe(load_stack("residual", StackOptions(depth=2, width=4)))
    assert (report.profile, report.training, report.trial) == (
        expected.profile,
        expected.training,
        expected.trial,
    )
    assert built.reach


class Counted(nn.Module):
    """Counts how many of its kind run at once."""

    running = most = 0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(lin(), nn.Dropout(), lin(), lin())

    def forward(self, x: Tensor) -> Tensor:
        Counted.running += 1
        Counted.most = max(Counted.most, Counted.running)
        time.sleep(0.005)
        y: Tensor = self.layers(x)
        Counted.running -= 1
        return y


def test_threads_measure_one_after_the_other_and_leave_the_process_as_it_was() -> None:
    from torch.utils.checkpoint import CheckpointFunction

    def probed(model: nn.Module) -> Any:
        return gradprobe.probe(model, x, deep=True).profile

    models, x = [Counted() for _ in range(4)], torch.randn(3, 4)
    expected, filters = probed(models[0]), list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(probed, models)) == [expected] * 4
    assert Counted.most == 1
    assert warnings.filters == filters
    assert "apply" not in vars(CheckpointFunction)
    assert not torch.is_warn_always_enabled()


# ---- in-place operations: compared with an out-of-place twin


def gradients(model: nn.Module, x: Tensor, **options: Any) -> dict[str, Any]:
    report = gradprobe.probe(model, x, loss=lambda y: y.square().sum(), **options)
    return {r.name: (r.gradient_norm, r.weight_gradient_norm) for r in report.rows}


def relu_stack(inplace: bool, width: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (lin(width), nn.ReLU(inplace=inplace))]
    return nn.Sequential(*layers, lin(width))


class AddsSkip(nn.Module):
    def __init__(self, inplace: bool, width: int) -> None:
        super().__init__()
        self.act, self.fc, self.inplace = nn.Tanh(), lin(width), inplace

    def forward(self, skip: Tensor) -> Tensor:
        x = self.fc(self.act(skip))
        if self.inplace:
            x += skip
            return x
        return x + skip


def skip_stack(inplace: bool, width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(lin(width), *(AddsSkip(inplace, width) for _ in range(3)), lin(width))


class FirstOpInPlace(nn.Module):
    def __init__(self, inplace: bool, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.inplace = lin(width), lin(width), lin(width), inplace

    def forward(self, x: Tensor) -> Tensor:
        x = x.mul_(2).relu_() if self.inplace else (2 * x).relu()
        return self.c(self.b(self.a(x)))


@pytest.mark.parametrize("level", ["blocks", "leaves"])
@pytest.mark.parametrize("width", [4, 192], ids=["small", "large"])
@pytest.mark.parametrize("stack", [relu_stack, skip_stack, FirstOpInPlace])
def test_an_in_place_model_measures_as_its_out_of_place_twin(
    stack: Callable[..., nn.Module], width: int, level: str
) -> None:
    x = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
    model = stack(True, width)
    with unchanged(model, x):
        found = gradients(model, x, level=level)
    expected = gradients(stack(False, width), x, level=level)
    assert found.keys() == expected.keys()
    for name, norms in expected.items():
        assert found[name] == tuple(near(norm, 1e-5) for norm in norms), name


def test_the_outputs_of_an_in_place_model_are_its_rows_own() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    report = gradprobe.probe(relu_stack(True, 4), x)
    assert report.rows[0].zero_fraction == 0  # before the ReLU overwrote it
    assert report.rows[1].zero_fraction > 0.2


def test_an_in_place_first_layer_of_a_spec_leaves_the_inputs(parse: Callable) -> None:
    from gradprobe.model.build import build

    layers = "[ReLU: {inplace: true}, Linear: {out_features: 4}, Linear: {out_features: 2}]"
    network, x = build(parse(f"input: {{shape: [4]}}\nlayers: {layers}")), torch.randn(3, 4)
    with unchanged(network, x):
        gradprobe.probe(network, x)


# ---- shared, frozen, unused, detached


def test_a_shared_module_s_gradient_is_the_sum_over_its_calls() -> None:
    shared = lin()
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), shared, lin())
    x = torch.randn(5, 4)
    with unchanged(model, x):
        report = gradprobe.probe(model, x, loss=lambda y: y.square().sum())
    assert [r.name for r in report.rows] == ["0", "1", "0 (2)", "3", "0 (3)", "5"]
    model(x).square().sum().backward()
    weight = report.rows[0].parameters[0]
    assert weight.gradient_norm == pytest.approx(float(shared.weight.grad.norm()), rel=1e-5)


def test_tied_parameters_are_counted_once_in_the_whole() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), lin(), nn.Linear(4, 10, bias=False))
    model[2].weight = model[0].weight
    x = torch.arange(6).reshape(2, 3)
    with unchanged(model, x):
        report = gradprobe.probe(model, x)
    assert report.profile.parameters == 60
    assert report.verdict == "healthy"


def test_frozen_parameters_are_told_and_nothing_more() -> None:
    model, x = nn.Sequential(lin().requires_grad_(False), lin(), lin(), lin()), torch.randn(3, 4)
    model[2].bias.requires_grad_(False)
    with unchanged(model, x):
        report = gradprobe.probe(model, x)
    [finding] = report.findings
    assert (finding.name, finding.severity) == ("frozen", Severity.INFO)
    assert "0 (weight, bias), 2.bias" in finding.message
    assert report.verdict == "healthy"
    assert report.rows[0].gradient_norm is not None
    assert report.rows[0].weight_gradient_norm is None
    assert report.rows[0].weight_norm


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = lin(), lin(), lin()
        self.spare = lin()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)))


def test_unused_parameters_are_named_as_without_a_gradient() -> None:
    model, x = Unused(), torch.randn(3, 4)
    with unchanged(model, x):
        report = gradprobe.probe(model, x)
    [finding] = report.findings
    assert report.verdict == "healthy"
    assert finding.name == "unused"
    assert "find_unused_parameters" in finding.advice
    assert "no gradient" in finding.message
    assert "spare" in finding.message
    assert "scale" in finding.message
    assert "never used" in finding.message
    spare = report.rows[-1]
    assert (spare.name, spare.status, spare.gradient_norm) == ("spare", RowStatus.NOT_RUN, None)


def test_an_unused_bias_is_named_in_full() -> None:
    class NoBias(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.T

    report = gradprobe.probe(nn.Sequential(lin(), NoBias(4, 4), lin()), torch.randn(3, 4))
    [finding] = report.findings
    assert "1.bias" in finding.message
    assert "1.weight" not in finding.message
    assert finding.name == "unused"


class Detached(nn.Module):
    def __init__(self, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.middle, self.head, self.cut = lin(), lin(), lin(), cut

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.cut(self.encoder(x))))


@pytest.mark.parametrize(
    "cut",
    [
        lambda h: h.detach(),
        lambda h: h.data,
        lambda h: torch.from_numpy(h.detach().numpy()),
        lambda h: nn.functional.one_hot(h.argmax(1), 4).float(),
    ],
    ids=["detach", "data", "numpy", "argmax"],
)
def test_a_detached_encoder_is_disconnected_and_not_vanishing(cut: Callable) -> None:
    model, x = Detached(cut), torch.randn(3, 4)
    with unchanged(model, x):
        report = gradprobe.probe(model, x)
    [finding] = report.findings
    assert report.verdict == "disconnected"
    assert "encoder" in finding.message
    assert "the graph is cut" in finding.message
    assert finding.row == "encoder"
    assert report.rows[0].status is RowStatus.NO_GRADIENT
    assert report.reach is None


def test_a_loss_that_is_cut_off_disconnects_everything() -> None:
    model, x = nn.Sequential(lin(), lin(), lin()), torch.randn(3, 4)
    with unchanged(model, x):
        report = gradprobe.probe(model, x, loss=lambda y: y.detach().sum())
    assert report.verdict == "disconnected"
    assert all(r.gradient_norm is None for r in report.rows)


# ---- wrappers and compilers


def test_a_data_parallel_wrapper_is_looked_through() -> None:
    inner = nn.Sequential(lin(), nn.Tanh(), lin(), lin())
    x = torch.randn(3, 4)
    bare, wrapped = gradprobe.probe(inner, x), gradprobe.probe(nn.DataParallel(inner), x)
    assert [r.gradient_norm for r in wrapped.rows] == [r.gradient_norm for r in bare.rows]


def inner() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(lin(), nn.Tanh(), FirstOpInPlace(False, 4), lin())


def in_place(model: nn.Sequential, backend: Any) -> nn.Module:
    model.compile(backend=backend)
    return model


def by_region(model: nn.Sequential, backend: Any) -> nn.Module:
    model[2] = torch.compile(model[2], backend=backend)
    return model


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.parametrize("how", [torch.compile, in_place, by_region])
@pytest.mark.parametrize("used", [False, True])  # what is compiled by then knows no hook
def test_a_compiled_model_is_measured_as_it_was_written(how: Callable, used: bool) -> None:
    times = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal times
        times += 1
        return graph

    model, x = how(inner(), backend=backend), torch.randn(3, 4)
    if used:
        model(x)
    before = times
    bare = gradprobe.probe(inner(), x, deep=True)
    report = gradprobe.probe(model, x, deep=True)
    assert times == before
    assert [r.name for r in report.rows] == [r.name for r in bare.rows]
    assert [r.gradient_norm for r in report.rows] == [r.gradient_norm for r in bare.rows]
    assert report.training == bare.training


SHARDED = """
import os, sys, torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
import gradprobe

rank, ranks, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=ranks)

def model():
    torch.manual_seed(0)
    first, norm = [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)], nn.LayerNorm(5)
    return nn.Sequential(*first, norm, nn.Linear(5, 3))

x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
sharded, mesh = model(), init_device_mesh("cpu", (ranks,))
for layer in (sharded[0], sharded[2], sharded):
    fully_shard(layer, mesh=mesh)
expected, report = gradprobe.probe(model(), x), gradprobe.probe(sharded, x, deep=True)
for row, other in zip(report.rows, expected.rows, strict=True):
    for name in ("gradient_norm", "weight_norm", "weight_gradient_norm", "activation_rms"):
        a, b = getattr(row, name), getattr(other, name)
        assert a == b or abs(a - b) < 1e-5 * b, (row.name, name, a, b)
assert report.verdict == expected.verdict == "healthy", report
assert "sharded" in report.training.reason
assert all(p.grad is None for p in sharded.parameters())
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_sharded_weights_have_the_norms_that_all_ranks_hold(ranks: int, tmp_path: Path) -> None:
    place = f"file://{tmp_path}/meet"
    command = [sys.executable, "-c", SHARDED]
    workers = [subprocess.Popen([*command, str(rank), str(ranks), place]) for rank in range(ranks)]
    assert [worker.wait(120) for worker in workers] == [0] * ranks
