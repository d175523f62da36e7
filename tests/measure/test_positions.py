"""Through time: how far the gradient of the last position reaches back along a sequence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import Result
from helpers.oracle import Layer, gradient, links, network_of, pull, spec_of, values
from torch import Tensor

from gradprobe.measure.profile import RowStatus
from gradprobe.model.make import make
from gradprobe.spec.options import ProbeOptions
from gradprobe.tasks.probe import probe_target
from gradprobe.verdict.report import Report, Verdict

FLOAT64 = ProbeOptions(dtype="float64", batch_size=8, by="position")


def linear(width: int) -> Layer:
    return {"Linear": {"out_features": width}}


def probed(
    layers: list[Layer], shape: list[int], tokens: int | None = None, **options: Any
) -> Report:
    given = {"dtype": "float64", "batch_size": 8, "by": "position", **options}
    return probe_target(spec_of(layers, shape, tokens), ProbeOptions(**given))


def reach_of(report: Report) -> list[float]:
    found = [report.profile.reach_of(row) for row in report.rows]
    assert all(reach is not None for reach in found)
    return [reach for reach in found if reach is not None]


def written(folder: Path, layers: list[Layer], shape: list[int], tokens: int | None = None) -> Path:
    given = {"shape": shape, "tokens": tokens} if tokens else {"shape": shape}
    file = folder / "net.yaml"
    file.write_text(json.dumps({"input": given, "layers": layers}))
    return file


def recurrent(kind: str, width: int = 32, **arguments: Any) -> Layer:
    return {kind: {"hidden_size": width, **arguments}}


def transformer(width: int, times: int, causal: bool) -> list[Layer]:
    attention = {"MultiheadAttention": {"num_heads": 2, "causal": causal}}
    return [
        {
            "repeat": {
                "times": times,
                "layers": [
                    {"residual": ["LayerNorm", attention]},
                    {"residual": ["LayerNorm", linear(2 * width), "GELU", linear(width)]},
                ],
            }
        },
        "LayerNorm",
    ]


# ---- what each kind of network does


def test_a_tanh_rnn_forgets(run: Callable[..., Result], tmp_path: Path) -> None:
    """torch's default weights: each position takes a factor of about 1/√3 · E[tanh'²]^½."""
    file = written(tmp_path, [recurrent("RNN")], [150, 32])
    done = run("probe", file, "--by", "position", "--format", "json")
    assert done.code == 1
    body = json.loads(done.out)
    assert body["verdict"] == "vanishing"
    assert body["unit"] == "position"
    assert body["steps"] == 149
    assert [row["name"] for row in body["rows"]] == [str(t) for t in range(150)]
    assert any(finding["rule"] == "GP101" for finding in body["findings"])
    assert run("probe", file, "--by", "position", "--dtype", "float64").code == 1


def test_a_tanh_rnn_in_the_linear_regime_decays_by_its_matrix() -> None:
    """∂L/∂x_t = W_ihᵀ (W_hhᵀ)^(T-1-t) v while tanh' = 1: by 0.9 for each position, if W_hh = 0.9 Q.

    With W_ih orthogonal the norm of v is kept, so every single step has that factor too.
    """
    init = {
        "weight_hh": {"orthogonal": {"gain": 0.9}},
        "weight_ih": {"orthogonal": {"gain": 1e-3}},
        "bias": "zeros",
    }
    report = probed([recurrent("RNN", init=init)], [150, 32])
    assert report.decay == pytest.approx(0.9, rel=0.03)
    reach = reach_of(report)
    for t, value in enumerate(reach):
        assert value == pytest.approx(0.9 ** (149 - t), rel=0.03)
    assert report.profile.half_life == pytest.approx(math.log(0.5) / math.log(0.9), rel=0.03)
    assert report.verdict is Verdict.VANISHING  # 0.9^149 is 1.5e-7


def test_an_orthogonal_rnn_keeps_everything() -> None:
    init = {
        "weight_hh": {"orthogonal": {}},
        "weight_ih": {"orthogonal": {"gain": 1e-4}},
        "bias": "zeros",
    }
    report = probed([recurrent("RNN", 16, init=init)], [40, 16])
    assert min(reach_of(report)) == pytest.approx(1, rel=0.03)
    assert report.verdict is Verdict.HEALTHY


def test_an_lstm_holds_longer_than_an_rnn() -> None:
    rnn = probed([recurrent("RNN")], [60, 32])
    lstm = probed([recurrent("LSTM")], [60, 32])
    assert rnn.decay is not None
    assert lstm.decay is not None
    assert rnn.decay < lstm.decay < 1
    assert rnn.profile.half_life is not None
    assert lstm.profile.half_life is not None
    assert rnn.profile.half_life < lstm.profile.half_life


def test_a_causal_transformer_reaches_everywhere() -> None:
    layers = [
        {"Embedding": {"embedding_dim": 16}},
        *transformer(16, 4, causal=True),
        linear(50),
    ]
    report = probed(layers, [64], tokens=50)
    reach = reach_of(report)
    assert len(reach) == 64
    assert min(reach) > 1e-3
    assert report.verdict is Verdict.HEALTHY


@pytest.mark.parametrize("kind", ["MultiheadAttention", "TransformerEncoderLayer", "RNN", "LSTM"])
def test_nothing_leaks_from_the_future(kind: str) -> None:
    """∂y_t/∂x_s is exactly zero for s > t, and is not for s ≤ t."""
    layer: Layer = {
        "MultiheadAttention": {"residual": ["LayerNorm", {kind: {"num_heads": 2, "causal": True}}]},
        "TransformerEncoderLayer": {
            kind: {"nhead": 2, "dim_feedforward": 8, "dropout": 0, "causal": True}
        },
    }.get(kind, recurrent(kind, 8))
    network = network_of([layer, layer, linear(3)], [6, 8])
    x = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for t in range(6):
        seed = torch.zeros(4, 6, 3, dtype=torch.float64)
        seed[:, t] = 1.0
        back = pull(network, x, seed)
        assert torch.equal(back[:, t + 1 :], torch.zeros_like(back[:, t + 1 :]))
        assert bool((back[:, : t + 1].abs().amax(2) > 0).all())


def test_without_causal_the_future_is_seen() -> None:
    network = network_of([{"MultiheadAttention": {"num_heads": 2}}, linear(3)], [6, 8])
    x = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    seed = torch.zeros(4, 6, 3, dtype=torch.float64)
    seed[:, 0] = 1.0
    assert bool((pull(network, x, seed)[:, 1:].abs().amax(2) > 0).all())


# ---- against autograd by hand


def norms(x: Tensor) -> list[float]:
    """The norm at each position over batch and features."""
    return [float(torch.linalg.vector_norm(x[:, t])) for t in range(x.shape[1])]


CASES: dict[str, tuple[list[Layer], list[int], int | None, int, int]] = {
    # layers, shape, tokens, the links that stand before, the links up to the last sequence
    "rnn": ([recurrent("RNN", 8)], [12, 4], None, 0, 1),
    "with a stem and a head": (
        [linear(6), "Tanh", recurrent("GRU", 8), linear(3)],
        [9, 4],
        None,
        2,
        4,
    ),
    "transformer": (
        [{"Embedding": {"embedding_dim": 8}}, *transformer(8, 2, True), linear(7)],
        [10],
        7,
        1,
        7,
    ),
    "what follows is no sequence": (
        [linear(6), recurrent("LSTM", 6), "LayerNorm", "Flatten", linear(4)],
        [7, 3],
        None,
        1,
        3,
    ),
    "two that mix": ([recurrent("RNN", 5), linear(5), recurrent("RNN", 5)], [8, 2], None, 0, 3),
    "both ways": ([recurrent("GRU", 4, bidirectional=True), linear(3)], [8, 2], None, 0, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_each_position_by_hand(name: str) -> None:
    layers, shape, tokens, before, end = CASES[name]
    report = probed(layers, shape, tokens)
    prepared = make(spec_of(layers, shape, tokens), FLOAT64)
    chain = links(prepared.model, layers)
    at = values(chain[:end], prepared.args[0])
    start = at[before]

    def last_position(out: Tensor) -> Tensor:
        return prepared.loss(out[:, -1])

    expected = norms(gradient(chain[before:end], start, last_position))
    assert [row.gradient_norm for row in report.rows] == pytest.approx(expected, rel=1e-10)
    assert report.profile.loss == pytest.approx(float(last_position(at[-1])), rel=1e-12)
    rms = [float(at[-1][:, t].square().mean().sqrt()) for t in range(len(expected))]
    assert [row.activation_rms for row in report.rows] == pytest.approx(rms, rel=1e-12)
    assert reach_of(report) == pytest.approx([g / expected[-1] for g in expected], rel=1e-10)
    assert report.reach == pytest.approx(expected[0] / expected[-1], rel=1e-10)
    assert report.profile.steps == len(expected) - 1
    assert {row.status for row in report.rows} == {RowStatus.OK}
    assert {row.kind for row in report.rows} == {"position"}
    assert report.profile.parameters == sum(p.numel() for p in prepared.model.parameters())


def test_the_line_is_that_of_the_row_that_mixes(tmp_path: Path, run: Callable[..., Result]) -> None:
    file = tmp_path / "net.yaml"
    file.write_text("input: {shape: [120, 4]}\nlayers:\n  - Tanh\n  - RNN: {hidden_size: 4}\n")
    body = json.loads(run("probe", file, "--by", "position", "--format", "json").out)
    assert {row["line"] for row in body["rows"]} == {4}
    assert body["findings"][0]["line"] == 4


@pytest.mark.parametrize("loss", ["projection", "cross_entropy", "mse"])
def test_every_loss_reads_the_last_position(loss: str) -> None:
    report = probed([recurrent("RNN", 6), linear(5)], [7, 3], loss=loss)
    assert all(row.gradient_norm for row in report.rows)
    assert report.profile.loss != 0


def test_the_network_and_the_random_state_are_left_as_they_were() -> None:
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    probed([recurrent("LSTM", 6, num_layers=2, dropout=0.5)], [7, 3])
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- the command


def test_no_row_mixes_positions(run: Callable[..., Result], tmp_path: Path) -> None:
    file = written(tmp_path, [linear(4), "Tanh", linear(3)], [6, 4])
    for target in (file, "residual"):
        done = run("probe", target, "--by", "position")
        assert (done.code, done.out) == (2, "")
        assert "no row mixes the positions" in done.err
        assert "LSTM" in done.err  # what would


@pytest.mark.parametrize(
    ("layers", "shape", "tokens"),
    [
        # The sequence begins and ends inside one row.
        ([{"sequential": [{"Embedding": {"embedding_dim": 4}}, recurrent("LSTM", 4)]}], [6], 9),
        ([{"sequential": [recurrent("LSTM", 4), "Flatten"]}, linear(3)], [6, 4], None),
        # One sample is no sequence: torch takes the batch for one.
        ([recurrent("LSTM", 4), linear(3)], [6], None),
    ],
)
def test_a_sequence_that_cannot_be_looked_at_is_told_plainly(
    run: Callable[..., Result],
    tmp_path: Path,
    layers: list[Layer],
    shape: list[int],
    tokens: int | None,
) -> None:
    done = run("probe", written(tmp_path, layers, shape, tokens), "--by", "position")
    assert done.code in (0, 1, 2), done.err
    assert "the model failed" not in done.err


@pytest.mark.parametrize("width", [80, 120])
def test_the_text(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    file = written(tmp_path, [recurrent("RNN", 8)], [150, 4])
    done = run("probe", file, "--by", "position", "--dtype", "float64")
    lines = done.out.splitlines()
    assert all(len(line) <= width for line in lines)
    [header] = [line for line in lines if line.startswith("position ")]
    words = "gradient output zeros inputs ∂weights weights parameters".split()
    assert header.split()[-1] in words
    assert "150 positions" in done.out
    assert "per position" in done.out
    told = [line for line in lines if line.startswith("⋮")]
    shown = [line for line in lines if line.split()[1:2] == ["position"]]
    assert len(shown) + sum(int(line.split()[1]) for line in told) == 150
