"""The moments of a signal, carried through a network's layers at finite depth."""

from __future__ import annotations

import math

from gradprobe.spec.network import LayerSpec, NetworkSpec, walk
from gradprobe.theory import mean_field as theory
from gradprobe.theory.leaves import RULES, Leaf
from gradprobe.theory.mean_field import Tangent
from gradprobe.theory.moments import Gain, Moments, Silent


class Walker:
    """Carries moments through the layers of one network."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        kinds = {layer.kind for layer, _ in walk(spec.layers)}
        self.correlated = any(kind.startswith("BatchNorm") for kind in kinds)

    def chain(self, layers: tuple[LayerSpec, ...], moments: Moments) -> tuple[Gain, Moments]:
        """The gain of ``layers`` one after another, and the moments behind them.

        Raises:
            Silent: theory has nothing to say about one of them.
        """
        whole = Gain()
        for layer in layers:
            gain, moments = self._layer(layer, moments)
            whole = whole.then(gain)
            if not (math.isfinite(moments.square) and math.isfinite(whole.chi)):
                raise Silent("the signal grows beyond all numbers")
        return whole, moments

    def _layer(self, layer: LayerSpec, moments: Moments) -> tuple[Gain, Moments]:
        if layer.kind in ("repeat", "sequential"):
            return self.chain(layer.branches[0] * layer.times, moments)
        if layer.kind == "residual":
            return self._residual(layer, moments)
        rule = RULES.get(layer.kind)
        if rule is None:
            raise Silent(f"{layer.kind} has no closed form here")
        inits = {**self.spec.init.get(layer.kind, {}), **layer.init}
        return rule(Leaf(layer, inits, self.correlated), moments)

    def _residual(self, layer: LayerSpec, moments: Moments) -> tuple[Gain, Moments]:
        """Squares and variances of the two ways; their cross term vanishes between networks, and
        within one it is 2 s b δᵀJδ, of relative variance 4 s² b² χ_S χ_F / n."""
        itself = Leaf(layer, {}, self.correlated)
        s, b = itself.number("skip_scale", 1.0), itself.number("branch_scale", 1.0)
        skip, branch = Gain(), Gain(0.0, mixes=True)
        kept = moments
        if len(layer.branches) > 1:
            skip, kept = self.chain(layer.branches[1], moments)
        nothing = Tangent(0.0, 0.0, 0.0)
        moved = kept._replace(mean=0.0, square=0.0, product=0.0, tangent=nothing)  # F = 0
        if not layer.arguments.get("zero_init"):
            branch, moved = self.chain(layer.branches[0], moments)
        if not (skip.mixes or branch.mixes):
            raise Silent("neither way through the residual holds random weights")
        chi = theory.residual_chi(branch.chi, s, b, skip.chi)
        ways = (s * s * skip.chi, b * b * branch.chi)
        width = max(1, min(kept.width, moments.width))
        spread = ways[0] ** 2 * skip.variance + ways[1] ** 2 * branch.variance
        spread += 4 * ways[0] * ways[1] / width
        return Gain(chi, spread / chi**2 if chi else 0.0, True), _sum(kept, s, moved, b)


def _sum(skip: Moments, s: float, branch: Moments, b: float) -> Moments:
    """The moments of s · skip + b · branch; the branch's units are independent of the skip's."""
    cross = 2 * s * b * skip.mean * branch.mean
    return branch._replace(
        mean=s * skip.mean + b * branch.mean,
        square=s * s * skip.square + b * b * branch.square + cross,
        product=s * s * skip.product + b * b * branch.product + cross,
        tangent=Tangent(
            s * s * skip.tangent.square
            + b * b * branch.tangent.square
            + 2 * s * b * skip.tangent.mean * branch.tangent.mean,
            s * s * skip.tangent.along
            + b * b * branch.tangent.along
            + s * b * (skip.mean * branch.tangent.mean + branch.mean * skip.tangent.mean),
            s * skip.tangent.mean + b * branch.tangent.mean,
        ),
        gaussian=skip.gaussian and branch.gaussian,
    )
