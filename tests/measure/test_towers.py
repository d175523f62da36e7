"""Each tower of a network has a reach of its own, read off which row feeds which."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradprobe

WIDTH = 6


def stack(depth: int, gain: float, inside: int = 3) -> nn.Sequential:
    """Linear layers that each multiply the gradient by ``gain``."""
    layers = [nn.Linear(inside, WIDTH), *(nn.Linear(WIDTH, WIDTH) for _ in range(depth))]
    for layer in layers[1:]:
        nn.init.orthogonal_(layer.weight, gain)
    return nn.Sequential(*layers)


class Pair(nn.Module):
    """Two encoders that meet at the very end, as of text and images."""

    def __init__(self, gains: tuple[float, float]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.text, self.image = stack(5, gains[0]), stack(4, gains[1])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.text(a) * self.image(b)
        return out


class Translator(nn.Module):
    """Each layer of the decoder reads the encoder's end, which was made before or behind."""

    def __init__(self, embeds_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = stack(3, 1.0)
        self.start = nn.Linear(3, WIDTH)
        self.decoder = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.embeds_first = embeds_first

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        early = self.start(b) if self.embeds_first else None
        memory = self.encoder(a)
        y: Tensor = self.start(b) if early is None else early
        for layer in self.decoder:
            y = layer(y + memory)
        return y


def inputs(*sizes: int) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return tuple(torch.randn(5, 3) for _ in range(2))


def ends(profile: Any) -> list[tuple[str, str]]:
    return [(part.trunk[0].name, part.trunk[-1].name) for part in profile.parts]


def test_reach_is_within_a_tower() -> None:
    report = gradprobe.probe(Pair((0.5, 2.0)).double(), tuple(x.double() for x in inputs()))
    assert ends(report.profile) == [("text.0", "text.4"), ("image.0", "image.3")]
    reaches = [part.reach for part in report.profile.parts]
    assert reaches == pytest.approx([0.5**4, 2.0**3], rel=1e-6)
    assert report.reach == reaches[0]
    by_name = {row.name: report.profile.reach_of(row) for row in report.rows}
    assert by_name["image.0"] == pytest.approx(8.0, rel=1e-6)


@pytest.mark.parametrize("embeds_first", [True, False])
def test_a_decoder_is_a_tower_and_its_encoder_another(embeds_first: bool) -> None:
    report = gradprobe.probe(Translator(embeds_first), inputs())
    assert sorted(ends(report.profile)) == [("encoder.0", "encoder.2"), ("start", "decoder.2")]


def test_a_tower_that_loses_its_gradient_is_named_beside_one_that_does_not() -> None:
    report = gradprobe.probe(Pair((1.0, 0.01)).double(), tuple(x.double() for x in inputs()))
    assert report.verdict is gradprobe.Verdict.VANISHING
    [finding] = [f for f in report.findings if f.rule == "GP101"]
    assert (finding.row or "").startswith("image.")


def test_the_trunk_ends_where_the_last_head_begins() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.value = stack(3, 1.0), nn.Linear(WIDTH, 1)
            self.policy = nn.Linear(WIDTH, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.body(x)
            return self.value(h), self.policy(h)

    report = gradprobe.probe(Heads(), inputs()[0])
    assert ends(report.profile) == [("body.0", "body.3")]


def test_two_embeddings_of_one_body_are_no_towers() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Linear(3, WIDTH), nn.Linear(3, WIDTH)
            self.body = stack(3, 1.0, WIDTH)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            out: Tensor = self.body(self.token(a) + self.position(b))
            return out

    report = gradprobe.probe(Sum(), inputs())
    assert ends(report.profile) == [("token", "body.2")]


class Judged(nn.Module):
    """Two frozen layers in front, and a frozen judge whose answer is taken without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.given = nn.ModuleList(nn.Linear(5, 5) for _ in range(2)).requires_grad_(False)
        self.learned = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))
        self.judge = nn.ModuleList(nn.Linear(5, 5) for _ in range(4)).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        wanted = x
        with torch.no_grad():
            for layer in self.judge:
                wanted = layer(wanted)
        for layer in self.given:
            x = layer(x).relu()
        for layer in self.learned:
            x = layer(x).tanh()
        return (x - wanted).square().mean()


def test_the_trunk_is_of_what_is_trained() -> None:
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    report = gradprobe.probe(Judged(), x, loss=lambda out: out)
    names = [row.name for row in report.profile.trunk]
    assert names == ["learned.0", "learned.1"]
    assert report.verdict == "healthy"
