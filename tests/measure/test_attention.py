"""What the graph tells of attention, held against the same computed from its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradprobe
from gradprobe.measure.attention import entropy_of, similarity
from gradprobe.render.text import render_report
from gradprobe.tasks.documents.report import ReportDocument

HEADS, TOKENS, WIDTH = 2, 7, 4


def scores(scale: float) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, TOKENS, WIDTH).requires_grad_() for _ in range(3))
    return q * scale, k, v


def entropy(weights: Tensor, causal: bool) -> float:
    """Σ -p ln p ÷ ln of how many keys there are, of each query that has a choice."""
    shares = []
    for head in weights.double():
        for place, row in enumerate(head):
            keys = place + 1 if causal else TOKENS
            if keys > 1:
                told = -sum(p * math.log(p) for p in row.tolist() if p > 0)
                shares.append(told / math.log(keys))
    return math.fsum(shares) / len(shares)


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("how", ["fused", "mask", "written", "dropout"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_entropy_is_that_of_the_weights(scale: float, how: str, causal: bool) -> None:
    q, k, v = scores(scale)
    mask = (
        torch.full((TOKENS, TOKENS), -math.inf).triu(1) if causal else torch.zeros(TOKENS, TOKENS)
    )
    weights = (q @ k.transpose(2, 3) / WIDTH**0.5 + mask).softmax(-1)
    if how == "written":
        node = weights.grad_fn
    else:
        options = {"is_causal": causal} if how == "fused" else {"attn_mask": mask}
        dropout = 0.5 if how == "dropout" else 0.0
        node = F.scaled_dot_product_attention(q, k, v, **options, dropout_p=dropout).grad_fn
    found, stack = [], [node]
    while stack:
        node = stack.pop()
        value = entropy_of(node) if node else None
        found += [] if value is None else [value]
        stack += [n for n, _ in node.next_functions if n] if node else []
    assert found[0] == pytest.approx(entropy(weights[0], causal), rel=1e-4)


def test_the_similarity_is_the_mean_cosine_of_two_tokens() -> None:
    x = torch.randn(3, 5, 6)
    pairs = [
        F.cosine_similarity(sample[i], sample[j], dim=0).item()
        for sample in x
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert similarity(x) == pytest.approx(sum(pairs) / len(pairs), rel=1e-4)
    assert similarity(x[:, :1].expand(3, 5, 6)) == pytest.approx(1.0)
    assert similarity(x[0]) is None


def encoder() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(8, 2, 8, batch_first=True) for _ in range(2)]
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 2))


def test_rows_with_attention_have_its_columns_on_request() -> None:
    model, x = encoder(), torch.randn(2, 5, 6)
    report = gradprobe.probe(model, x, attention=True)
    assert [row.name for row in report.rows if row.attention] == ["1", "2"]
    assert "entropy" in render_report(report)
    rows = ReportDocument.of(report).rows
    assert rows[1].attention.entropy == report.rows[1].attention.entropy
    assert gradprobe.probe(model, x).rows[1].attention is None


def test_a_network_without_attention_has_none() -> None:
    with pytest.raises(gradprobe.InputError, match="no row has attention"):
        gradprobe.probe(
            nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), torch.zeros(2, 3) + 1, attention=True
        )
