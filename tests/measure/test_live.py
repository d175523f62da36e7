"""A watched program: its norms are autograd's own, and its results those of a run without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from io import BytesIO
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from gradprobe.measure.live.watcher import Seen, Watcher
from gradprobe.spec.options import JudgeOptions, ProbeOptions
from gradprobe.verdict.judge import judge

Train = Callable[[], Any]


class Block(nn.Module):
    def __init__(self, width: int, how: str = "plain") -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.drop = nn.Dropout(0.2)

    def inner(self, x: Tensor) -> Tensor:
        return x + self.second(self.drop(torch.tanh(self.first(x))))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "plain":
            return self.inner(x)
        result = checkpoint(self.inner, x, use_reentrant=self.how == "reentrant")
        assert isinstance(result, Tensor)
        return result


def stack(how: str = "plain", width: int = 8) -> nn.Sequential:
    torch.manual_seed(1)
    ends = nn.Linear(3, width), nn.Linear(width, 2)
    return nn.Sequential(ends[0], *[Block(width, how) for _ in range(3)], ends[1])


def watched(train: Train, steps: Sequence[int] = (1,), **options: Any) -> list[Seen]:
    seen: list[Seen] = []
    with Watcher(lambda n: n in steps, seen.append, ProbeOptions(**options)):
        train()
    return seen


def norms(step: Seen) -> dict[str, float | None]:
    assert step.measurement, step.reason
    return {
        p.name: p.gradient_norm for row in step.measurement.profile.rows for p in row.parameters
    }


def row_norms(step: Seen) -> list[float | None]:
    assert step.measurement, step.reason
    return [row.gradient_norm for row in step.measurement.profile.rows]


def own_norms(model: nn.Module, loss: Tensor) -> dict[str, float]:
    """What autograd says, by the parameters' names."""
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), retain_graph=True)
    return dict(zip(named, (float(g.norm()) for g in gradients), strict=True))


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, generator=generator), torch.randn(6, 2, generator=generator)


@pytest.mark.parametrize("how", ["plain", "reentrant", "other"])
def test_norms_are_autograds_own_and_nothing_is_changed(how: str) -> None:
    expected: dict[str, float] = {}

    def train(compare: bool = False) -> list[Tensor]:
        model = stack(how)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for number in range(3):
            x, y = batch(number)
            optimizer.zero_grad()
            loss = (model(x.requires_grad_()) - y).square().mean()
            if compare and how == "plain" and not expected:
                expected.update(own_norms(model, loss))
            loss.backward()
            optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    alone = train()
    results: list[list[Tensor]] = []
    seen = watched(lambda: results.append(train(True)), steps=(1, 3))
    assert [step.step.number for step in seen] == [1, 3]
    assert all(torch.equal(a, b) for a, b in zip(alone, results[0], strict=True))
    if how == "plain":
        assert norms(seen[0]) == pytest.approx(expected, rel=1e-6)
    assert all(row_norms(seen[0]))
    assert len(row_norms(seen[0])) == 5


def test_a_checkpointed_stack_has_the_norms_of_one_that_is_not() -> None:
    seen = {}
    for how in ("plain", "reentrant", "other"):

        def train(how: str = how) -> None:
            model = stack(how).eval()  # dropout draws at other times where a block runs twice
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            x, y = batch()
            (model(x) - y).square().mean().backward()
            optimizer.step()

        seen[how] = watched(train)[0]
    for how in ("reentrant", "other"):
        assert norms(seen[how]) == pytest.approx(norms(seen["plain"]), rel=1e-6)
        assert row_norms(seen[how]) == pytest.approx(row_norms(seen["plain"]), rel=1e-6)


def test_of_accumulated_batches_the_last_is_shown_and_their_number() -> None:
    expected: dict[str, float] = {}

    def train() -> None:
        model = stack().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for number in range(4):
            x, y = batch(number)
            loss = (model(x) - y).square().mean() / 4
            expected.update(own_norms(model, loss))
            loss.backward()
        optimizer.step()

    [step] = watched(train)
    assert step.step.backwards == 4
    assert norms(step) == pytest.approx(expected, rel=1e-6)


def test_a_closure_runs_the_passes_inside_the_step() -> None:
    def train() -> None:
        model = stack().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = batch()

        def closure() -> float:
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            return float(loss.detach())

        optimizer.step(closure)

    [step] = watched(train)
    assert all(row_norms(step))


def test_of_two_optimizers_each_has_the_model_that_it_trains() -> None:
    class Maker(nn.Sequential):
        pass

    class Judge(nn.Sequential):
        pass

    expected: list[dict[str, float]] = []

    def train() -> None:
        torch.manual_seed(0)
        maker = Maker(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
        judge = Judge(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        of_maker = torch.optim.Adam(maker.parameters())
        of_judge = torch.optim.SGD(judge.parameters(), lr=0.1)
        z, real = torch.randn(5, 2), torch.randn(5, 3)
        loss = nn.functional.softplus(judge(maker(z).detach())).mean()
        loss = loss + nn.functional.softplus(-judge(real)).mean()
        expected.append(own_norms(judge, loss))
        loss.backward()
        of_judge.step()
        loss = nn.functional.softplus(-judge(maker(z))).mean()
        expected.append(own_norms(maker, loss))
        loss.backward()
        of_maker.step()

    of_judge, of_maker = watched(train)
    assert (of_judge.step.optimizer, of_judge.step.kind) == (1, "SGD")
    assert (of_maker.step.optimizer, of_maker.step.kind) == (0, "Adam")
    assert of_judge.measurement
    assert of_judge.measurement.name == "Judge"
    assert of_maker.measurement
    assert of_maker.measurement.name == "Maker"
    assert norms(of_judge) == pytest.approx(expected[0], rel=1e-6)
    assert norms(of_maker) == pytest.approx(expected[1], rel=1e-6)


def test_a_loss_that_differentiates_with_respect_to_its_input() -> None:
    expected: dict[str, float] = {}

    def train() -> None:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)
        )
        optimizer = torch.optim.Adam(model.parameters())
        x = torch.linspace(0, 1, 7)[:, None].requires_grad_()
        u = model(x)
        [slope] = torch.autograd.grad(u.sum(), x, create_graph=True)
        loss = (slope + u).square().mean()
        expected.update(own_norms(model, loss))
        loss.backward()
        optimizer.step()

    [step] = watched(train)
    seen = norms(step)
    assert {name: seen[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_a_scaled_loss_is_shown_without_its_scale() -> None:
    expected: dict[str, float] = {}

    def train() -> None:
        model = stack().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        x, y = batch()
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(x).float() - y).square().mean()
        expected.update(own_norms(model, loss))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    [step] = watched(train)
    assert step.step.scale == 1024
    assert norms(step) == pytest.approx(expected, rel=1e-6)
    assert step.measurement
    assert step.measurement.config["dtype"] == "bfloat16"


def test_a_scaled_loss_takes_nothing_from_the_first_row_s_size() -> None:
    def train(scale: float) -> Train:
        def run() -> None:
            model = stack().eval()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1)
            x, y = batch()
            scaler.scale((model(x) - y).square().mean()).backward()
            scaler.step(optimizer)

        return run

    profiles = [
        step.measurement.profile
        for scale in (1.0, 1024.0)
        for step in watched(train(scale))
        if step.measurement
    ]
    sizes = [profile.rows[0].weighted_rms for profile in profiles]
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-5)
    assert profiles[1].growth == pytest.approx(profiles[0].growth, rel=1e-5)


def test_deep_takes_the_second_look_at_the_same_call() -> None:
    def train() -> None:
        model = stack().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = batch()
        (model(x) - y).square().mean().backward()
        optimizer.step()

    [step] = watched(train, deep=True)
    assert step.measurement
    assert step.measurement.look
    assert step.measurement.look.coherence


def test_the_second_look_under_autocast_is_at_the_weights_after_the_step() -> None:
    def train() -> None:
        model = stack().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = batch()
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(x).float() - y).square().mean()
        loss.backward()
        optimizer.step()

    [step] = watched(train, deep=True)
    assert step.measurement
    assert step.measurement.look
    assert 0.5 < (step.measurement.look.coherence or 0.0) < 1


@pytest.mark.parametrize("normalised", [False, True])
def test_advice_is_given_in_code(normalised: bool) -> None:
    """An init changes nothing of a step of weights that are normalised behind."""

    def train() -> None:
        norm = nn.BatchNorm1d(16, affine=False) if normalised else nn.Identity()
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(16, 16), norm, nn.ReLU()) for _ in range(40)]
        model = nn.Sequential(*layers, nn.Linear(16, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.randn(64, 16)).mean().backward()
        optimizer.step()

    [step] = watched(train, deep=True)
    assert step.measurement
    report = judge(step.measurement, "train.py", JudgeOptions())
    advice = next(f.advice for f in report.findings if f.name == str(report.verdict))
    assert "x = x + f(x)" in advice
    assert ("nn.init.kaiming_normal_(model" in advice) != normalised


def _no_backward(model: nn.Module) -> None:
    model(batch()[0])


def _no_call(model: nn.Module) -> None:
    pass


def _other_loss(model: nn.Module) -> None:
    model(batch()[0])
    next(model.parameters()).square().sum().backward()


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (_no_backward, "backward() was not called"),
        (_no_call, "no module with the optimizer's parameters was called"),
        (_other_loss, "the loss does not follow from what the model gave"),
    ],
)
def test_where_nothing_can_be_measured_it_is_said(
    between: Callable[[nn.Module], None], reason: str
) -> None:
    def train() -> None:
        model = stack()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        between(model)
        optimizer.step()

    [step] = watched(train)
    assert step.measurement is None
    assert step.reason == reason


def test_rows_that_one_module_of_a_program_does_not_have_end_no_program() -> None:
    def train() -> None:
        judge = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        model = stack()
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (judge, model)]
        judge(torch.randn(4, 2)).sum().backward()
        optimizers[0].step()
        model(batch()[0]).sum().backward()
        optimizers[1].step()

    first, second = watched(train, rows="[123].first")
    assert first.reason == "rows: no module matches '[123].first'"
    assert second.measurement


@pytest.mark.parametrize("several", [False, True])
def test_a_backward_pass_from_an_edge_of_the_graph_goes_on(several: bool) -> None:
    def train() -> None:
        model = stack()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = model(batch()[0]).sum()
        edge: Any = torch.autograd.graph.get_gradient_edge(loss)
        torch.autograd.backward([edge, loss.sin()] if several else edge)
        optimizer.step()

    [step] = watched(train)
    assert bool(step.measurement) == several


def test_no_hook_is_left() -> None:
    from torch.nn.modules import module

    before = len(module._global_forward_hooks), torch.autograd.backward
    model = stack()

    def train() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(batch()[0]).sum().backward()
        optimizer.step()

    assert watched(train)[0].measurement
    assert (len(module._global_forward_hooks), torch.autograd.backward) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_watchers_that_stop_in_any_order_leave_torch_as_it_was() -> None:
    def torchs() -> tuple[Any, ...]:
        apply = vars(CheckpointFunction).get("apply")
        return torch.autograd.backward, torch.amp.GradScaler.scale, Optimizer.__init__, apply

    before = torchs()
    models = stack(), stack()
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in models]
    measured: list[list[int]] = [[], []]
    watchers = [
        Watcher(
            partial(lambda every, n: n % every == 0, every),
            partial(lambda own, s: own.append(s.step.number) if s.measurement else None, own),
            only=model,
        )
        for every, model, own in zip((3, 2), models, measured, strict=True)
    ]
    for watcher in watchers:
        watcher.__enter__()
    for _ in range(6):
        losses = [model(batch()[0]).sum() for model in models]
        for loss, optimizer in zip(losses, optimizers, strict=True):
            loss.backward()
            optimizer.step()
    for watcher in watchers:
        watcher.__exit__()
    assert measured == [[3, 6], [2, 4, 6]]
    assert torchs() == before


def test_what_one_watcher_runs_is_no_call_for_another() -> None:
    calls: list[int] = []
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    options = ProbeOptions(deep=True)
    with (
        Watcher(lambda n: n == 1, lambda _: None, options),
        Watcher(lambda n: n == 1, lambda _: calls.append(len(other._calls))) as other,
    ):
        model(batch()[0]).sum().backward()
        optimizer.step()
    assert calls == [1]


def test_a_model_that_is_its_own_row() -> None:
    def train() -> None:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = batch()
        (model(x) - y).square().mean().backward()
        optimizer.step()

    [step] = watched(train)
    assert len(row_norms(step)) == 1
    assert all(row_norms(step))


def test_a_model_that_has_run_can_be_copied() -> None:
    copies: list[nn.Module] = []

    def train() -> None:
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        x = torch.randn(8, 4)
        model(x)
        copies.append(deepcopy(model))
        torch.save(model, BytesIO())
        loss = model(x).square().mean()
        copies[0](x)
        loss.backward()
        optimizer.step()

    [step] = watched(train)
    assert step.measurement
    assert copies[0](torch.randn(2, 4)).shape == (2, 1)


def test_the_largest_of_several_calls_in_one_loss_is_shown() -> None:
    points, start = torch.linspace(0, 1, 30)[:, None], torch.zeros(1, 1)

    def train() -> None:
        model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        (model(points).square().mean() + (model(start) - 1).square().mean()).backward()
        optimizer.step()

    [step] = watched(train)
    assert step.args[0] is points
    assert step.measurement
    assert not step.measurement.profile.around.inputs_zero


def test_weights_that_functional_call_puts_in_for_a_pass() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def train() -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        steps = {name: p - 0.1 * p.square() for name, p in model.named_parameters()}
        torch.func.functional_call(model, steps, torch.randn(8, 4)).square().mean().backward()
        optimizer.step()

    [step] = watched(train)
    assert list(norms(step).values()) == pytest.approx(
        [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    )


class Drawing(nn.Module):
    """Puts out a mean, what it makes of a draw, and perhaps the draw."""

    def __init__(self, draw_too: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.reader, self.draw_too = nn.Linear(3, 4), nn.Linear(4, 2), draw_too

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        mean = self.mean(x)
        draw = torch.distributions.Normal(mean, 1.0).sample()
        return (mean, self.reader(draw), draw) if self.draw_too else (mean, self.reader(draw))


@pytest.mark.parametrize("density", [False, True])
def test_a_draw_of_which_the_program_may_take_the_density_is_none_that_is_cut(
    density: bool,
) -> None:
    def train() -> None:
        model = Drawing(density)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = batch()
        mean, output, *draw = model(x)
        loss = (output - y).square().mean() + mean.square().mean()
        for action in draw:
            loss = loss - torch.distributions.Normal(mean, 1.0).log_prob(action).mean()
        loss.backward()
        optimizer.step()

    [step] = watched(train, deep=True)
    assert step.measurement
    assert (step.measurement.profile.further.drawn is None) == density


@pytest.mark.parametrize("deep", [False, True])
def test_a_zero_head_is_looked_behind_and_trains_on_as_it_was(deep: bool) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

    def train() -> dict[str, Tensor]:
        torch.manual_seed(0)
        layers = [layer for _ in range(3) for layer in (nn.Linear(4, 4), nn.Tanh())]
        model = nn.Sequential(*layers, nn.Linear(4, 3))
        nn.init.zeros_(model[-1].weight)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        F.cross_entropy(model(x), torch.arange(8) % 3).backward()
        optimizer.step()
        return model.state_dict()

    own = train()
    trained: list[dict[str, Tensor]] = []
    [step] = watched(lambda: trained.append(train()), deep=deep)
    assert step.measurement
    profile = step.measurement.profile
    assert profile.redrawn == ("6.weight",)
    assert 0.01 < (profile.reach or 0) < 1
    assert all(torch.equal(own[name], tensor) for name, tensor in trained[0].items())


def test_a_model_with_a_zero_head_that_runs_once_alone_is_measured_all_the_same() -> None:
    class Once(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            assert not hasattr(self, "has_run")
            self.has_run = True
            result = super().forward(x)
            assert isinstance(result, Tensor)
            return result

    def train() -> None:
        layers = [layer for _ in range(3) for layer in (nn.Linear(4, 4), nn.Tanh())]
        model = Once(*layers, nn.Linear(4, 3))
        nn.init.zeros_(model[-1].weight)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        F.cross_entropy(model(torch.randn(8, 4)), torch.arange(8) % 3).backward()
        optimizer.step()

    [step] = watched(train)
    assert norms(step)["6.weight"]
    assert step.measurement
    assert step.measurement.profile.redrawn == ()


def test_what_a_program_s_own_loss_adds_up_is_compared() -> None:
    def train() -> None:
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        y = model(torch.randn(8, 4))
        (F.mse_loss(y, torch.randn(8, 3)) + 1e4 * y.square().sum()).backward()
        optimizer.step()

    [step] = watched(train, deep=True)
    assert step.measurement
    assert (step.measurement.profile.further.added or 0) > 1e3


def test_an_optimizer_of_gradprobe_s_own_is_none_of_the_program_s() -> None:
    seen: list[str] = []

    def train() -> None:
        model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        handle = register_optimizer_step_post_hook(lambda o, *_: seen.append(type(o).__name__))
        model(torch.randn(16, 2)).square().mean().backward()
        optimizer.step()
        handle.remove()

    assert [step.step.kind for step in watched(train, deep=True)] == ["SGD"]
    assert seen == ["SGD"]


def test_a_program_s_output_of_which_no_unit_is_trained() -> None:
    def train() -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        nn.init.constant_(model[0].bias, -10.0).data[0] = 1.0
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()

    [step] = watched(train, deep=True)
    assert step.measurement
    assert step.measurement.profile.further.idle == (1, 2)


class Positioned(nn.Sequential):
    """With a weight of its own, as class tokens and positions are."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
        self.positions = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.positions)


def test_steps_one_after_the_other_of_a_model_with_weights_of_its_own() -> None:
    def train() -> None:
        model = Positioned()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()

    assert [bool(step.measurement) for step in watched(train, [1, 2, 3])] == [True] * 3


def test_what_an_encoder_hands_over_follows_from_weights_of_its_own() -> None:
    def train() -> None:
        encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        decoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
        optimizer = torch.optim.SGD([*encoder.parameters(), *decoder.parameters()], 0.1)
        decoder(encoder(torch.randn(8, 4))).square().mean().backward()
        optimizer.step()

    [step] = watched(train)
    assert step.measurement
    assert step.measurement.name == "Sequential"
    assert step.measurement.profile.around.unowned == ()


def test_a_second_look_leaves_the_graph_that_its_inputs_come_from() -> None:
    def train() -> None:
        step = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))
        optimizer = torch.optim.SGD(step.parameters(), 0.1)
        state = torch.randn(8, 4)
        for _ in range(3):
            state = step(state)
        state.square().mean().backward()
        optimizer.step()

    [step] = watched(train, deep=True)
    assert step.measurement
    assert step.measurement.look


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_what_is_compiled_runs_as_it_was_written_at_a_step_that_is_looked_at() -> None:
    modes: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            modes.append(True)
            return graph(*args)

        return run

    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    compiled = torch.compile(model, backend=backend)

    def train() -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(4):
            compiled(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()

    steps = watched(train, [1, 3])
    assert [step.measurement is not None for step in steps] == [True, True]
    for step in steps:
        assert step.measurement
        assert step.measurement.profile.reach
    assert len(modes) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_program_may_compile_its_optimizer_s_step() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def train() -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        @torch.compile(backend="eager")
        def step() -> None:
            optimizer.step()

        for _ in range(4):
            model(torch.randn(8, 4)).square().mean().backward()
            step()

    steps = watched(train, [1, 4])
    assert [step.step.number for step in steps if step.measurement] == [1, 4]
