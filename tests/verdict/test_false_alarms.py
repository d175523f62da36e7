"""Sound networks that look like faulty ones: zero weights, rows beside each other, loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import gradprobe
from gradprobe.verdict.report import Report


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def alarms(report: Report) -> list[str]:
    return [f"{f.rule} {f.message}" for f in report.findings if f.severity]


# ---- zero weights in the middle


class Gated(nn.Module):
    """A trunk whose input is bent by a small network that ends in a zero layer."""

    def __init__(self, dead: bool, conv: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        first = nn.Conv1d(8, 8, 1) if conv else nn.Linear(8, 8)
        self.loc = nn.Sequential(first, nn.ReLU(), nn.Flatten())
        self.theta = nn.Linear(8, 8)
        nn.init.zeros_(self.theta.weight)
        if dead:
            nn.init.zeros_(first.weight)
            nn.init.zeros_(first.bias)
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        conv = isinstance(self.loc[0], nn.Conv1d)
        bend = self.theta(self.loc(x[..., None] if conv else x))
        return self.trunk(x * (1 + bend))


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_a_zero_weight_that_wakes_up_is_alive_and_one_that_does_not_is_dead(
    conv: bool, deep: bool
) -> None:
    alive = gradprobe.probe(Gated(False, conv), batch(16, 8), deep=deep)
    assert alarms(alive) == []
    dead = gradprobe.probe(Gated(True, conv), batch(16, 8), deep=deep)
    assert any("GP201" in alarm for alarm in alarms(dead))


def test_zero_weights_behind_one_another_wake_up_one_at_a_time() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
    for layer in (model[2], model[3]):
        nn.init.zeros_(layer.weight)
    assert alarms(gradprobe.probe(model, batch(16, 8))) == []


# ---- rows beside each other


class Branches(nn.Module):
    """Two branches whose sum goes on; the first is called first and feeds nothing of the other."""

    def __init__(self, dead: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.act = nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU()
        self.c, self.d = nn.Linear(8, 8), nn.Linear(8, 4)
        self.share = 0.0 if dead else 1.0

    def forward(self, x: Tensor) -> Tensor:
        left = self.a(x)
        right = self.act(self.b(x))
        return self.d(torch.relu(self.c(right + self.share * left)))


def test_what_stands_next_in_the_list_is_blamed_for_what_it_feeds_alone() -> None:
    assert alarms(gradprobe.probe(Branches(False), batch(16, 8))) == []
    [finding] = [f for f in gradprobe.probe(Branches(True), batch(16, 8)).findings if f.severity]
    assert finding.row == "c", (
        "a feeds c; b, which follows a in the list, has nothing to do with it"
    )


# ---- loops


class Loop(nn.Module):
    """A recurrent network of two linear layers, over the steps of x."""

    def __init__(self, act: Callable[[Tensor], Tensor] = torch.tanh, gates: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x, self.h = nn.Linear(8, 16 * gates), nn.Linear(16, 16 * gates, bias=False)
        self.head, self.act, self.gates = nn.Linear(16, 4), act, gates

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 16)
        for now in x.unbind(1):
            new, *gate = (self.x(now) + self.h(state)).chunk(self.gates, -1)
            if gate:
                keep = torch.sigmoid(gate[0])
                state = keep * state + (1 - keep) * self.act(new)
            else:
                state = self.act(new)
        out: Tensor = self.head(state)
        return out


class Tied(nn.Module):
    """One pair of layers, again and again: depth, with or without a skip."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.head, self.skip = nn.Linear(16, 4), skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(20):
            x = torch.sigmoid(self.b(torch.sigmoid(self.a(x)))) + (x if self.skip else 0)
        out: Tensor = self.head(x)
        return out


@pytest.mark.parametrize("gates", [1, 2])
def test_a_recurrent_cell_written_by_hand_is_one_row_a_layer(gates: int) -> None:
    report = gradprobe.probe(Loop(gates=gates), batch(16, 100, 8), deep=True)
    assert [row.name for row in report.rows] == ["x", "h", "head"]
    assert not any("GP1" in alarm for alarm in alarms(report))


@pytest.mark.parametrize("skip", [False, True])
def test_layers_that_are_repeated_are_depth(skip: bool) -> None:
    report = gradprobe.probe(Tied(skip), batch(16, 8))
    assert len(report.rows) == 42
    assert ("vanishing" in report.verdict) == (not skip)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_over_one_step_is_not_dead(kind: type[nn.RNNBase]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = kind(8, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.layer(x)[0][:, -1])
            return out

    assert alarms(gradprobe.probe(Model(), batch(8, 1, 8))) == []


# ---- models of unusual make


class Complex(nn.Module):
    """A spectral layer: its weight is complex."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spectrum = nn.Parameter(torch.randn(5, 5, dtype=torch.complex64) / 5)
        self.fc, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.fft.irfft(torch.fft.rfft(self.fc(x)) @ self.spectrum, n=8)
        out: Tensor = self.head(torch.tanh(mixed))
        return out


class Pairs(nn.Module):
    """All distances between samples: they are meant to mix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(self.net(x), self.net(x) + 1)


class Graph(nn.Module):
    """A layer over the nodes of one graph."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        links = (torch.rand(16, 16) < 0.3).float() + torch.eye(16)
        self.links = links.to_sparse() if sparse else links
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.a(self.links @ x))
        out: Tensor = self.c(torch.tanh(self.b(self.links @ x)))
        return out


@pytest.mark.parametrize("make", [Complex, Pairs, lambda: Graph(False), lambda: Graph(True)])
def test_what_is_unusual_and_sound_raises_no_alarm(make: Callable[[], nn.Module]) -> None:
    told = alarms(gradprobe.probe(make(), batch(16, 8), deep=True))
    assert [alarm for alarm in told if alarm.startswith(("GP6", "GP7"))] == []


# ---- what is meant to have no gradient, or to see the other samples


class Stream(nn.Module):
    """Each block reads a stream, adds to it, and puts something out beside it."""

    def __init__(self, lost: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.lost = nn.Linear(8, 16), nn.Linear(16, 3), lost
        self.blocks = nn.ModuleList(Tap() for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), 0.0
        for block in self.blocks:
            x, out = block(x)
            total = total + (out.detach() if self.lost else out)
        return self.last(x * 0 + total if self.lost else total)


class Tap(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.on, self.out = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.inner(x))
        return x + self.on(h), self.out(h)


def test_what_the_last_block_hands_on_to_nobody_is_no_cut() -> None:
    report = gradprobe.probe(Stream(lost=False), batch(16, 8))
    assert report.healthy
    assert "GP205 no gradient, the loss does not depend on them: blocks.4.on" in alarms(report)[0]
    cut = gradprobe.probe(Stream(lost=True), batch(16, 8))
    assert any("GP202" in alarm for alarm in alarms(cut))


class Neighbours(nn.Module):
    """Each node sees its neighbours, of which an input of the model tells."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, nodes: Tensor, neighbours: Tensor) -> Tensor:
        for layer in self.layers:
            nodes = nodes + torch.tanh(neighbours @ layer(nodes))
        return nodes


def test_nodes_with_an_adjacency_matrix_are_no_samples() -> None:
    nodes, neighbours = batch(12, 8), batch(12, 12).gt(0.5).float()
    report = gradprobe.probe(Neighbours(), (nodes, neighbours), deep=True)
    assert not [f for f in report.findings if f.rule == "GP608"]


class Timed(nn.Module):
    """Each sample has a number of its own beside it, as in a diffusion model."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dim, self.layers = dim, nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + time[:, None] * layer(x).softmax(self.dim)
        return x


@pytest.mark.parametrize("dim", [0, 1])
def test_samples_mix_also_where_each_has_a_number_of_its_own(dim: int) -> None:
    report = gradprobe.probe(Timed(dim), (batch(12, 8), batch(12)), deep=True)
    assert ("GP608" in [f.rule for f in report.findings]) == (dim == 0)


class Remembers(nn.Module):
    """Tokens with the state that the first of them meets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.cell = nn.Embedding(20, 8), nn.GRUCell(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: Tensor, state: Tensor) -> Tensor:
        for step in self.embedding(tokens).unbind(1):
            state = self.cell(step, state)
        out: Tensor = self.head(state)
        return out


def test_tokens_beside_a_state_of_zeros_are_inputs_and_not_the_same() -> None:
    tokens, state = torch.arange(60).reshape(12, 5) % 17, torch.zeros(12, 8)
    loss = nn.functional.cross_entropy
    report = gradprobe.probe(
        Remembers(), (tokens, state), deep=True, loss=lambda y: loss(y, torch.arange(12) % 4)
    )
    assert not alarms(report)


class Masked(nn.Module):
    """Attention with a mask that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.first, self.layers = nn.Linear(4, 8), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(self.first(x), mask=mask))
        return out


def test_a_mask_of_minus_infinity_is_no_broken_input() -> None:
    mask, x = nn.Transformer.generate_square_subsequent_mask(6), batch(12, 6, 4)
    assert not alarms(gradprobe.probe(Masked(), (x, mask), deep=True))
    x[0, 0, 0] = -torch.inf
    assert "GP301" in str(alarms(gradprobe.probe(Masked(), (x, mask))))


class Conditioned(nn.Module):
    """Zero-initialised branches hide what they are conditioned by, and a zero head hides them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.condition = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8))
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
        self.branches = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        for layer in (*self.branches, self.head):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        given, x = self.condition(condition), self.first(x)
        for branch in self.branches:
            x = x + branch(torch.tanh(x + given))
        return self.head(x)


@pytest.mark.parametrize("deep", [False, True])
def test_zeros_behind_zeros_are_seen_through(deep: bool) -> None:
    report = gradprobe.probe(Conditioned(), (batch(16, 8), batch(16, 4)), deep=deep)
    assert report.healthy
    assert report.reach
    assert report.profile.redrawn[0] == "head.weight"


class Summary(nn.Module):
    """A state of its own that reads the features through a gain alone, block by block."""

    def __init__(self, gain: float, trained: bool = True, shape: tuple[int, ...] = (24,)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.state = nn.Parameter(torch.randn(24) * 0.02)
        self.embed = nn.Linear(10, 24)
        self.blocks = nn.ModuleList(nn.Linear(24, 24) for _ in range(4))
        gains = (nn.Parameter(torch.full(shape, gain), requires_grad=trained) for _ in self.blocks)
        self.gains = nn.ParameterList(gains)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        state = self.state.expand_as(x)
        for block, gain in zip(self.blocks, self.gains, strict=True):
            x, state = x + gain * block(torch.tanh(x)), state + gain * block(x)
        return self.head(self.norm(state))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("shape", [(24,), (1, 24), ()])
def test_a_gain_near_zero_is_seen_through(shape: tuple[int, ...], deep: bool) -> None:
    model = Summary(1e-6, shape=shape)
    report = gradprobe.probe(model, batch(16, 10), deep=deep)
    assert str(report.verdict) == "healthy"
    assert set(report.profile.redrawn) <= {f"gains.{number}" for number in range(4)}
    assert report.profile.redrawn
    [note] = [finding for finding in report.findings if finding.rule == "GP402"]
    assert note.message.startswith("starts near zero, set to 0.1 to see behind it: gains.")
    assert all(bool((gain == 1e-6).all()) for gain in model.gains)


@pytest.mark.parametrize("head", [1e-5, 1.0, 100.0])
def test_the_size_of_the_head_does_not_keep_a_gain_asleep(head: float) -> None:
    model = Summary(1e-4)
    with torch.no_grad():
        model.head.weight.mul_(head)
    report = gradprobe.probe(model, batch(16, 10))
    assert len(report.profile.redrawn) == 4
    assert "vanishing" not in {finding.name for finding in report.findings}


@pytest.mark.parametrize("trained", [False, True])
def test_a_gain_that_is_not_trained_or_needed_stays_as_it_is(trained: bool) -> None:
    report = gradprobe.probe(Summary(0.3 if trained else 1e-6, trained), batch(16, 10))
    assert not report.profile.redrawn
    assert str(report.verdict) == ("healthy" if trained else "vanishing")


def sigmoids(layers: int) -> nn.Sequential:
    torch.manual_seed(0)
    pairs = [(nn.Linear(8, 8), nn.Sigmoid()) for _ in range(layers)]
    return nn.Sequential(*(layer for pair in pairs for layer in pair), nn.Linear(8, 4))


def test_a_bias_near_zero_is_no_gain() -> None:
    model = sigmoids(12)
    for layer in model[::2]:
        nn.init.constant_(layer.bias, 5e-4)
    report = gradprobe.probe(model, batch(16, 8))
    assert (str(report.verdict), report.profile.redrawn) == ("vanishing", ())


@pytest.mark.parametrize(
    "strange", [torch.zeros(4, dtype=torch.cfloat), torch.full((4,), 1e-6, dtype=torch.cfloat)]
)
def test_a_parameter_of_another_kind_is_no_gain(strange: Tensor) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.phase = sigmoids(12), nn.Parameter(strange)

        def forward(self, x: Tensor) -> Tensor:
            return (self.body(x) + self.phase).real

    assert str(gradprobe.probe(Odd(), batch(16, 8)).verdict) == "vanishing"


def test_zeros_that_two_layers_share_are_drawn_once() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
            self.one, self.other = nn.Linear(16, 4), nn.Linear(16, 4)
            nn.init.zeros_(self.one.weight)
            self.other.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.one(self.body(x)) + self.other(self.body(x).tanh())

    report = gradprobe.probe(Heads(), batch(16, 8), deep=True)
    assert report.profile.redrawn
    assert alarms(report) == []


class Conditions(nn.Module):
    """A network that reads what it gave before, as a value: self-conditioning, recycling."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.head = nn.Linear(16, 24), nn.Linear(24, 8)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Linear(24, 24), nn.Tanh()) for _ in range(3))
        )
        self.how = how

    def once(self, x: Tensor, own: Tensor) -> Tensor:
        return self.head(self.blocks(self.enter(torch.cat([x, own], 1))))

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.how != "no_grad"):
            own = self.once(x, torch.zeros_like(x)).detach()
        return self.once(x, torch.zeros_like(x) if self.how == "unused" else own)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("how", ["no_grad", "detach", "unused"])
def test_a_call_whose_result_is_a_value_is_no_part_of_the_trunk(how: str, deep: bool) -> None:
    report = gradprobe.probe(Conditions(how), batch(16, 8), deep=deep)
    assert (str(report.verdict), alarms(report)) == ("healthy", [])
    layers = [row for row in report.profile.trunk if row.kind == "Linear"]
    assert all(row.call == 2 and row.parameters for row in layers)


class Slope(nn.Module):
    """Puts out the derivative of a network, which the last bias does not change."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        return torch.autograd.grad(self.inner(x).sum(), x, create_graph=True)[0]


def test_what_the_loss_cannot_depend_on_is_named_once() -> None:
    report = gradprobe.probe(Slope(), batch(16, 2))
    assert report.healthy
    assert [alarm.partition(" no gradient, ")[2] for alarm in alarms(report)] == [
        "the loss does not depend on them: inner.2.bias"
    ]


class Scaled(nn.Module):
    """A layer whose lengths or scales are positive by their nature, as weights are not."""

    def __init__(self, how: str) -> None:
        super().__init__()
        conv = nn.Conv1d(16, 16, 3, padding=1)
        self.layer = parametrizations.weight_norm(conv) if how == "weight_norm" else conv
        self.scale = nn.Parameter(torch.full((1, 16, 1), 0.1)) if how == "layer scale" else 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale * self.layer(x).relu()
        return out


@pytest.mark.parametrize("how", ["weight_norm", "layer scale"])
def test_lengths_and_scales_are_no_weights_of_one_sign(how: str) -> None:
    draw = torch.Generator().manual_seed(0)
    alike = 1 + 0.01 * torch.randn(8, 16, 6, generator=draw)
    torch.manual_seed(0)
    model = nn.Sequential(*(Scaled(how) for _ in range(4)))
    rules = {finding.rule for finding in gradprobe.probe(model, alike).findings}
    assert not rules & {"GP707", "GP709"}


class Bayesian(nn.Linear):
    """Weights that are drawn anew at each pass; their deviations start equal."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.deviation = nn.Parameter(torch.full((8, 8), 0.01))

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(8, 8)
        return nn.functional.linear(x, self.weight + self.deviation * noise, self.bias)


def test_deviations_that_start_equal_make_no_units_alike() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Bayesian(), nn.Tanh(), Bayesian())
    assert not alarms(gradprobe.probe(model, batch(16, 8)))


class Prompted(nn.Module):
    """A frozen network of which a prompt behind the embedding is all that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(9, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 2)
        self.requires_grad_(False)
        self.prompt = nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.prompt.expand(len(x), -1, -1), self.embedding(x)], 1)
        out: Tensor = self.head(self.layers(x).mean(1))
        return out


def test_a_prompt_for_a_frozen_network_is_judged_by_the_rows_behind_it() -> None:
    torch.manual_seed(0)
    report = gradprobe.probe(Prompted(), torch.arange(24).view(4, 6) % 9)
    assert not alarms(report)
    assert report.profile.reach


class Iterated(nn.Module):
    """An equilibrium that is sought from zero: the first call of a layer without a bias gives 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.inner = nn.Linear(8, 16), nn.Linear(16, 16, bias=False)
        self.norm, self.outer = nn.LayerNorm(16), nn.Linear(16, 16, bias=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        z = torch.zeros_like(x)
        for _ in range(4):
            z = x + self.outer(self.norm(self.inner(z).relu()))
        return self.head(z)


@pytest.mark.parametrize("deep", [False, True])
def test_the_first_step_from_a_state_of_zeros_is_not_dead(deep: bool) -> None:
    report = gradprobe.probe(Iterated(), batch(16, 8), deep=deep)
    assert report.profile.rows[1].gradient_norm == 0
    assert report.healthy
    assert alarms(report) == []


class GatedBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.gate = nn.Sequential(nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x) * self.gate(x)


def gated_blocks(*off: int) -> nn.Module:
    """Four blocks, in which the units of these gates are off."""
    torch.manual_seed(0)
    blocks = nn.Sequential(*(GatedBlock(16) for _ in range(4)))
    for index in off:
        nn.init.constant_(blocks[index].gate[0].bias, -99.0)
    return nn.Sequential(nn.Linear(8, 16), blocks, nn.Linear(16, 4))


@pytest.mark.parametrize("deep", [False, True])
def test_a_gate_that_is_off_in_one_block_of_many_does_not_fail(deep: bool) -> None:
    report = gradprobe.probe(gated_blocks(2), batch(16, 8), deep=deep)
    [alarm] = alarms(report)
    assert alarm.startswith("GP204 exactly zero gradient, and not in the other blocks: 1.2.gate.0")
    assert report.healthy
    for off in ((0, 1, 2), (0, 1, 2, 3)):
        assert "GP201" in alarms(gradprobe.probe(gated_blocks(*off), batch(16, 8), deep=deep))[0]
