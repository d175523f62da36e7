"""What published models do and small ones rarely: lists of lists, views, outputs, losses."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradprobe
from gradprobe.model.losses import loss_of
from gradprobe.model.rows import find_rows

WIDTH = 6


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.map = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.tanh(self.map(self.norm(x)))
        return out


class Gate(Branch):
    pass


def around(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, WIDTH), *middle, nn.Linear(WIDTH, 2))


class Pairs(nn.Module):
    """Each layer is a list of three, with a place that is left empty."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([Branch(), None, Gate()])  # type: ignore[list-item]
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for first, _, second in self.layers:
            x = x + first(x)
            x = x + second(x)
        return x


def test_what_stands_in_lists_of_a_list_are_rows() -> None:
    report = gradprobe.probe(around(Pairs(3)), torch.randn(4, 3))
    inside = [f"1.layers.{i}.{j}" for i in range(3) for j in (0, 2)]
    assert [row.name for row in report.rows] == ["0", *inside, "2"]
    assert report.verdict is gradprobe.Verdict.HEALTHY


class Stage(nn.Sequential):
    pass


@pytest.mark.parametrize("kind", [Stage, nn.Sequential])
def test_a_stage_is_opened_whatever_its_class_is_called(kind: type[nn.Sequential]) -> None:
    def block(width: int) -> nn.Module:
        return nn.TransformerEncoderLayer(width, 1, 2 * width, batch_first=True)

    stages = nn.ModuleList(kind(*[block(width) for _ in range(3)]) for width in (4, 6, 8))
    names = [row.name for row in find_rows(stages)]
    assert names == [f"{stage}.{i}" for stage in range(3) for i in range(3)]


class Skip(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


def test_a_bare_sequential_around_a_skip_is_a_block() -> None:
    blocks = [nn.Sequential(Skip(nn.Linear(WIDTH, WIDTH)), nn.ReLU()) for _ in range(4)]
    assert [row.name for row in find_rows(around(*blocks))] == ["0", "1", "2", "3", "4", "5"]
    plain = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(2)]
    names = [row.name for row in find_rows(around(*plain))]
    assert names == ["0", "1.0", "1.1", "2.0", "2.1", "3"]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_view_that_is_overwritten_keeps_its_gradient(in_place: bool) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.map(x).transpose(1, 2)
            return out

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turned, self.scale = Turned(), nn.Parameter(torch.full((5,), 3.0))
            self.mix, self.out = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.turned(x)
            if in_place:
                x *= self.scale
            else:
                x = x * self.scale
            out: Tensor = self.out(torch.tanh(self.mix(x)))
            return out

    torch.manual_seed(0)
    model, x = Net().double(), torch.randn(2, 5, 3, dtype=torch.float64)
    [row] = [r for r in gradprobe.probe(model, x).rows if r.name == "turned"]
    y = model.turned(x).detach().requires_grad_()
    out = model.out(torch.tanh(model.mix(y * model.scale)))
    [gradient] = torch.autograd.grad(loss_of("projection", None, 0)(out), y)
    assert row.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-12)


def test_a_row_of_two_streams_is_measured_over_both() -> None:
    class Streams(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return a + self.a(b), b + self.b(a)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Streams() for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            a, b = x, 2 * x
            for block in self.blocks:
                a, b = block(a, b)
            return a - b

    torch.manual_seed(1)
    model, x = Net().double(), torch.randn(5, 4, dtype=torch.float64)
    report = gradprobe.probe(model, x, rows="blocks.*")
    pairs = []
    a, b = x, 2 * x
    for block in model.blocks:
        a, b = block(a, b)
        pairs.append((a, b))
    loss = loss_of("projection", None, 0)(a - b)
    for row, pair in zip(report.rows, pairs, strict=True):
        gradients = torch.autograd.grad(loss, pair, retain_graph=True)
        size = math.hypot(*(float(g.norm()) for g in gradients))
        assert row.gradient_norm == pytest.approx(size, rel=1e-12)


def test_every_output_is_read() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.value, self.policy = nn.Linear(3, 8), nn.Linear(8, 1), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = torch.tanh(self.body(x))
            return {"value": self.value(h), "policy": self.policy(h)}

    report = gradprobe.probe(Heads(), torch.randn(6, 3))
    assert report.verdict is gradprobe.Verdict.HEALTHY
    one = {"a": torch.randn(3, 2)}
    both = one | {"b": torch.randn(4)}
    loss = loss_of("projection", None, 7)
    assert loss(one) == loss([one["a"]])
    outputs = [t.requires_grad_() for t in both.values()]
    for gradient in torch.autograd.grad(loss(both), outputs):
        assert float(gradient.norm()) == pytest.approx(1, rel=1e-6)


def test_a_forward_may_ask_for_the_gradient_of_its_input() -> None:
    class Field(nn.Module):
        """The gradient of a potential."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1, bias=False)
            )

        def forward(self, x: Tensor) -> Tensor:
            x.requires_grad = True
            return torch.autograd.grad(self.layers(x).sum(), x, create_graph=True)[0]

    report = gradprobe.probe(Field(), torch.randn(5, 3), deep=True)
    assert all(row.weight_gradient_norm for row in report.rows if row.size > 8)


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor, scale: float = 1.0) -> Tensor:
        out: Tensor = self.out(self.embedding(ids).mean(1)) * scale
        return out


IDS = torch.arange(12).reshape(4, 3) % 9


@pytest.mark.parametrize("inputs", [IDS, {"ids": IDS}, UserDict({"ids": IDS}), ((), {"ids": IDS})])
def test_inputs_may_be_any_mapping(inputs: Any) -> None:
    torch.manual_seed(2)
    model = Embedded()
    assert gradprobe.probe(model, inputs).reach == gradprobe.probe(model, IDS).reach


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.functional.cross_entropy])
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_loss_of_two_takes_its_target_from_the_batch(loss: Any, kind: Any) -> None:
    torch.manual_seed(3)
    model, target = Embedded(), torch.tensor([0, 2, 1, 1])
    by_hand = gradprobe.probe(model, IDS, loss=lambda out: nn.functional.cross_entropy(out, target))
    assert gradprobe.probe(model, kind([IDS, target]), loss=loss).profile == by_hand.profile


@pytest.mark.parametrize(
    ("inputs", "options", "told"),
    [
        (IDS, {"loss": nn.MSELoss()}, "the loss takes an output and a target"),
        (IDS[:0], {}, "the batch holds no samples"),
        (IDS, {"loss": "nonsense"}, "loss: unknown word 'nonsense'"),
    ],
)
def test_what_does_not_fit_is_told(inputs: Any, options: Any, told: str) -> None:
    with pytest.raises(gradprobe.InputError, match=told):
        gradprobe.probe(Embedded(), inputs, **options)


@pytest.mark.parametrize("model", [nn.Linear, "plain", torch.nn.functional.relu, None])
def test_what_is_no_module_is_refused(model: Any) -> None:
    with pytest.raises(gradprobe.InputError, match=r"the model is no nn\.Module"):
        gradprobe.probe(model, IDS)


@pytest.mark.parametrize("kind", [list, tuple, DataLoader])
def test_labels_in_the_batch_are_the_loss_s_and_not_the_model_s(kind: Any) -> None:
    torch.manual_seed(3)
    model, x = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(4, 3)
    target = torch.tensor([0, 2, 1, 1])
    pairs = TensorDataset(x, target)
    batch = DataLoader(pairs, batch_size=4) if kind is DataLoader else kind([x, target])
    by_hand = gradprobe.probe(model, x, loss=lambda out: nn.functional.cross_entropy(out, target))
    state = torch.get_rng_state()
    for loss in ("cross_entropy", nn.CrossEntropyLoss()):
        assert gradprobe.probe(model, batch, loss=loss).profile == by_hand.profile
    assert gradprobe.probe(model, batch).profile == gradprobe.probe(model, x).profile
    assert torch.equal(state, torch.get_rng_state())


def test_a_list_that_the_model_takes_is_no_batch_with_labels() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, parts: list[Tensor]) -> Tensor:
            out: Tensor = self.b(self.a(parts[0] + parts[1]))
            return out

    x = torch.randn(4, 3)
    assert gradprobe.probe(Sum(), [x, x]).verdict is gradprobe.Verdict.HEALTHY
    assert gradprobe.probe(Embedded(), DataLoader(TensorDataset(IDS), batch_size=4)).reach


def test_a_model_without_a_loss_of_its_own_is_told() -> None:
    with pytest.raises(gradprobe.ModelError, match="the model gave no loss"):
        gradprobe.probe(Embedded(), IDS, loss="own")


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0])
def test_a_small_embedding_in_front_of_a_norm_does_not_explode(size: float) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            self.blocks = nn.Sequential(
                *[Skip(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))) for _ in range(4)]
            )
            self.norm, self.out = nn.LayerNorm(8, eps=1e-30), nn.Linear(8, 20)
            nn.init.normal_(self.embedding.weight, std=size)
            for layer in self.blocks.modules():
                if isinstance(layer, nn.LayerNorm):
                    layer.eps = 1e-30
                    nn.init.constant_(layer.weight, size)

        def forward(self, ids: Tensor) -> Tensor:
            out: Tensor = self.out(self.norm(self.blocks(self.embedding(ids))))
            return out

    torch.manual_seed(4)
    report = gradprobe.probe(Net(), torch.randint(20, (4, 5)))
    assert report.verdict is gradprobe.Verdict.HEALTHY
    assert report.reach == pytest.approx(1 / size, rel=9)


class Convolution(nn.Module):
    """A graph's: each layer sees the neighbours, of which the first input tells."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, neighbours: Tensor, nodes: Tensor) -> Tensor:
        for layer in self.layers:
            nodes = torch.tanh(neighbours @ layer(nodes))
        return nodes


@pytest.mark.filterwarnings("ignore:Sparse CS")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_inputs_may_be_sparse(layout: torch.layout) -> None:
    nodes, neighbours = torch.randn(6, 4), torch.randn(6, 6).relu()
    expected, report = (
        gradprobe.probe(Convolution(), (x, nodes), deep=True)
        for x in (neighbours, neighbours.to_sparse(layout=layout))
    )
    norms, dense = ([row.gradient_norm for row in r.rows] for r in (report, expected))
    assert norms == pytest.approx(dense)
    assert report.training
    assert report.training.probability
    hole = neighbours.clone()
    hole[0, 0] = math.nan
    broken = gradprobe.probe(Convolution(), (hole.to_sparse(layout=layout), nodes))
    assert "the input holds NaN or infinity" in str(broken)
    trial = gradprobe.probe(
        Convolution(), (neighbours.to_sparse(layout=layout), nodes), overfit=True
    )
    assert trial.trial
    assert trial.trial.courses


class Some(nn.Module):
    """Says that its head is all that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = around(nn.Tanh()), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x))
        return y

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return self.head.parameters()


def test_a_model_may_have_more_parameters_than_it_says() -> None:
    report = gradprobe.probe(Some(), torch.randn(4, 3), deep=True)
    assert "not in model.parameters(), so no optimizer trains them: body.2.weight" in str(report)
    assert all(row.weight_gradient_norm for row in report.rows if row.parameters)


def test_a_model_may_have_integers_alone() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3, dtype=torch.int8), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.float()

    report = gradprobe.probe(nn.Sequential(Whole(), Whole(), Whole()), torch.randn(4, 3))
    assert "GP206" in [finding.rule for finding in report.findings]


def test_a_packed_sequence_is_one_argument() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 3), torch.randn(2, 3)])
    report = gradprobe.probe(nn.GRU(3, 4), packed, deep=True)
    assert [row.name for row in report.rows] == ["(model)"]


def test_attention_takes_the_way_that_training_takes() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(3, 4, 8)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[0, 2:] = True
    report = gradprobe.probe(model, ((x,), {"src_key_padding_mask": mask}), blocks=True)
    assert all(row.jacobian for row in report.rows if row.parameters)
    assert torch.backends.mha.get_fastpath_enabled()


def test_autocast_s_copies_of_weights_are_none_of_before_a_step() -> None:
    torch.manual_seed(0)
    model, x = around(nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()), torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        report = gradprobe.probe(model, x, overfit=True)
        assert torch.is_autocast_cache_enabled()
    assert report.training
    assert report.training.signals
    assert report.training.signals.coherence < 1
    assert report.trial
    assert report.trial.learned
