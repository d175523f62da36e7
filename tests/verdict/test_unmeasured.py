"""Nothing to judge by, zeros that hide a network, outputs that a loss leaves out, small numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradprobe
from gradprobe.measure.measurement import Course, Outcome, Trial
from gradprobe.measure.profile import RowStatus
from gradprobe.spec.sources.yaml import parse
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Severity, Verdict
from tests.helpers.handmade import profile, row

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def network(act: type[nn.Module] = nn.Tanh, depth: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [m for _ in range(depth) for m in (nn.Linear(5, 5), act())]
    return nn.Sequential(*middle, nn.Linear(5, 3))


def scripted(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        result: nn.Module = torch.jit.script(model)
    return result


def traced(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        result: nn.Module = torch.jit.trace(model, X)
    return result


def exported(model: nn.Module) -> nn.Module:
    return torch.export.export(model, (X,)).module()


class Weights(nn.Module):
    """Layers without modules."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.ParameterList(torch.randn(5, 5) / 5 for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for w in self.w:
            x = torch.sigmoid(x @ w)
        return x


@pytest.mark.parametrize(
    "model",
    [
        lambda: scripted(network()),
        lambda: traced(network()),
        pytest.param(lambda: exported(network()), marks=pytest.mark.slow),
        Weights,
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_what_cannot_be_followed_has_no_verdict(model: Callable[[], nn.Module], deep: bool) -> None:
    report = gradprobe.probe(model(), X, deep=deep)
    assert report.verdict is Verdict.UNMEASURED
    [finding] = [f for f in report.findings if f.severity is Severity.ERROR]
    assert finding.rule == "GP107"
    assert "nothing to judge by" in finding.message
    with pytest.raises(AssertionError):
        gradprobe.assert_healthy(model(), X)
    gradprobe.assert_healthy(model(), X, ignore={"GP107": "it is served, not trained"})


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("act", "verdict"), [(nn.Sigmoid, "vanishing"), (nn.Tanh, "healthy")])
def test_a_head_of_zeros_is_seen_through(act: type[nn.Module], verdict: str, deep: bool) -> None:
    model = network(act, 12 if act is nn.Sigmoid else 3)
    nn.init.zeros_(model[-1].weight)
    before = model[-1].weight.data_ptr()
    report = gradprobe.probe(model, X, deep=deep)
    assert report.verdict == verdict
    [note] = [f for f in report.findings if f.rule == "GP402"]
    how = "starts at zero, drawn at random to see behind it"
    assert note.message == f"{how}: {len(model) - 1}.weight"
    assert report.reach
    assert report.training is None or report.training.probability
    assert model[-1].weight.data_ptr() == before
    assert not model[-1].weight.any()


def test_zeros_in_the_middle_are_seen_through_where_they_hide_the_rest() -> None:
    model = network()
    nn.init.zeros_(model[2].weight)
    report = gradprobe.probe(model, X)
    assert report.profile.redrawn == ("2.weight",)
    assert report.reach


def test_a_spec_with_a_head_of_zeros_is_seen_through() -> None:
    text = "input: {shape: [8]}\nlayers: [{Linear: {out_features: 8}}, Tanh, "
    text += "{Linear: {out_features: 8}}, {Linear: {out_features: 2, init: {weight: zeros}}}]\n"
    report = gradprobe.probe(parse(text.encode(), "net"))
    assert report.verdict is Verdict.HEALTHY
    assert report.reach
    assert len(report.profile.redrawn) == 1


BLIND = profile(*[row(name, None, status=RowStatus.NOT_RUN) for name in "abc"])
LEARNED = Course("SGD", 0.1, (2.0, 0.1), Outcome.LEARNED)
FAILED = Course("SGD", 0.1, (2.0, 1.9), Outcome.SLOW)


@pytest.mark.parametrize(
    ("course", "verdict"),
    [(LEARNED, Verdict.HEALTHY), (FAILED, Verdict.DOES_NOT_LEARN)],
)
def test_a_trial_judges_what_was_not_measured(course: Course, verdict: Verdict) -> None:
    _, result = diagnose(BLIND, THRESHOLDS, trial=Trial((course,), 16))
    assert result is verdict


def test_a_graver_finding_says_why_nothing_was_measured() -> None:
    for model in (network(), Weights()):
        report = gradprobe.probe(model, X, loss=lambda y: y.detach().sum())
        assert [f.rule for f in report.findings] == ["GP202"]
        assert report.verdict is Verdict.DISCONNECTED


# ---- several outputs


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Linear(5, 5), nn.Linear(5, 5)
        self.policy, self.value = nn.Linear(5, 2), nn.Linear(5, 1)
        self.mask_token = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> dict[str, object]:
        h = torch.tanh(self.body(torch.tanh(self.stem(x))))
        return {"policy": self.policy(h), "critics": [self.value(h)]}


def test_an_output_that_the_loss_leaves_out_is_named() -> None:
    model = Heads()
    report = gradprobe.probe(model, X, loss=lambda out: out["policy"].square().mean())
    [error] = [f for f in report.findings if f.severity is Severity.ERROR]
    assert error.rule == "GP202"
    assert "the loss leaves out output['critics'][0]: value (weight, bias)" in error.message
    assert "cut" not in error.message


def test_what_is_never_called_is_a_warning() -> None:
    report = gradprobe.probe(Heads(), X)
    [finding] = report.findings
    assert (finding.rule, finding.severity) == ("GP205", Severity.WARNING)
    assert "mask_token" in finding.message
    assert "find_unused_parameters" in finding.advice
    assert report.verdict is Verdict.HEALTHY


# ---- small first rows


class Tokens(nn.Module):
    """A learned token in front of what stands in the rows behind a norm."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.join = Join(scale)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(12, 2, 24, norm_first=True, batch_first=True, dropout=0)
            for _ in range(3)
        )
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.join(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h[:, -1])


class Join(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.map = nn.Linear(5, 12)
        self.register = nn.Parameter(torch.randn(1, 2, 12) * scale)

    def forward(self, x: Tensor) -> Tensor:
        h = self.map(x)
        return torch.cat([h, self.register.expand(len(h), -1, -1)], 1)


@pytest.mark.parametrize("scale", [1.0, 0.02, 1e-3, 0.0])
def test_a_token_of_small_numbers_in_front_of_a_norm_is_not_exploding(scale: float) -> None:
    model = Tokens(scale)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-10
    report = gradprobe.probe(model, torch.randn(4, 6, 5))
    assert report.verdict is Verdict.HEALTHY
    growth = report.profile.growth
    assert growth is not None
    assert growth < 30


def test_growth_is_what_no_scale_of_the_first_row_changes() -> None:
    def growth(scale: float) -> float:
        torch.manual_seed(0)
        body = [nn.LayerNorm(8, eps=0.0), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)]
        model = nn.Sequential(nn.Embedding(20, 8), *body)
        model[0].weight.data *= scale
        result = gradprobe.probe(model, torch.arange(20).reshape(4, 5)).profile.growth
        assert result is not None
        return result

    assert growth(1e-6) == pytest.approx(growth(1e-2), rel=1e-3)


def test_what_stands_at_the_output_is_said_where_no_row_could_be_followed() -> None:
    model, labels = nn.Sequential(network(), nn.Softmax(1)), torch.arange(6) % 3
    loss = nn.functional.cross_entropy
    report = gradprobe.probe(scripted(model), X, loss=lambda y: loss(y, labels))
    found = {finding.rule: finding.row for finding in report.findings}
    assert found["GP702"] is None
    assert "GP107" in found


def test_the_smallest_reach_there_is_has_a_gain_that_mends_it() -> None:
    findings, verdict = diagnose(profile(row("0", 5e-324), row("1", 1.0)), THRESHOLDS)
    assert verdict is Verdict.VANISHING
    assert findings[0].cures[0].number > 1e300


class LayerDrop(nn.Module):
    """A decoder alone reads the encoder, and drops all of its layers at every fourth draw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.start, self.head = network(), nn.Linear(5, 3), nn.Linear(3, 2)
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        memory, y = self.encoder(x), self.start(x.flip(0))
        for layer in self.layers:
            if not self.training or torch.rand(()) < 0.5:
                y = y + layer(y + memory)
        out: Tensor = self.head(y)
        return out


def test_where_layer_drop_takes_all_layers_another_draw_is_measured() -> None:
    reports = [gradprobe.probe(LayerDrop(), X, seed=seed) for seed in range(8)]
    assert {str(report.verdict) for report in reports} == {"healthy"}
    assert all(report.reach for report in reports)
