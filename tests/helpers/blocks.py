"""Blocks and sums over paths made by hand: no torch, every number chosen."""

from __future__ import annotations

import math
from dataclasses import replace

from gradprobe.measure.blocks.profile import (
    BlockProfile,
    BranchLayer,
    Estimate,
    JacobianProfile,
    PathProfile,
)

RESIDUAL = BlockProfile(
    name="1.10",
    kind="residual",
    residual=True,
    skip_scale=1.0,
    branch_scale=1.0,
    shortcut=False,
    layers=(
        BranchLayer("1.10.0", "LayerNorm", 0.998),
        BranchLayer("1.10.1", "Linear", 0.5774),
        BranchLayer("1.10.2", "GELU", 0.3321),
        BranchLayer("1.10.3", "Linear", 0.2043),
    ),
    input_rms=1.0312,
    branch_rms=0.2043,
    skip_rms=1.0312,
    output_rms=1.0544,
    arriving=0.6431,
    skip_part=0.6431,
    branch_part=0.1312,
    total=0.6609,
    cosine=0.0324,
    error=1.1e-16,
    jacobian=JacobianProfile(Estimate(1.0041), Estimate(0.2044), Estimate(1.0249)),
)
SCALED = replace(
    RESIDUAL,
    name="3",
    skip_scale=0.5,
    branch_scale=0.125,
    shortcut=True,
    layers=(
        BranchLayer("3.0", "BatchNorm1d", 1.0004),
        BranchLayer("3.1", "Linear", 1.4e-12),
    ),
    skip_rms=0.4999,
    branch_rms=3.1e-9,
    cosine=-1.0,
    jacobian=JacobianProfile(
        Estimate(0.3127, 0.0041), Estimate(12345.6, 78.9), Estimate(12346.0, 78.9)
    ),
)
PLAIN = BlockProfile(
    name="1.10",
    kind="Linear+Tanh",
    residual=False,
    skip_scale=0.0,
    branch_scale=1.0,
    shortcut=False,
    layers=(BranchLayer("1.10.0", "Linear", 0.3712), BranchLayer("1.10.1", "Tanh", 0.3402)),
    input_rms=0.6402,
    branch_rms=0.3402,
    skip_rms=0.0,
    output_rms=0.3402,
    arriving=1.0,
    skip_part=0.0,
    branch_part=0.5512,
    total=0.5512,
    cosine=None,
    error=0.0,
    jacobian=JacobianProfile(
        Estimate(-0.0312, 0.0003), Estimate(1.1361, 0.0002), Estimate(0.5512, 0.0002)
    ),
)
ZERO = replace(
    RESIDUAL,
    layers=(BranchLayer("1.10.0", "Linear", 0.0), BranchLayer("1.10.1", "Tanh", 0.0)),
    input_rms=0.5812,
    branch_rms=0.0,
    skip_rms=0.5812,
    output_rms=0.5812,
    arriving=0.5681,
    skip_part=0.5681,
    branch_part=0.0,
    total=0.5681,
    cosine=None,
    error=0.0,
    jacobian=JacobianProfile(Estimate(1.0), Estimate(0.0), Estimate(1.0)),
)
RESHAPING = replace(PLAIN, name="4", kind="Conv2d", jacobian=None, arriving=0.6431)

# The longest words and numbers that there are.
LONG = replace(
    SCALED,
    skip_scale=-1.25e-30,
    branch_scale=-9.99e29,
    layers=(
        BranchLayer("3.0", "TransformerEncoderLayer", 1.4e-120),
        BranchLayer("3.1", "MultiheadAttention", 1234.5),
        BranchLayer("3.2", "AdaptiveAvgPool3d", 1e100),
    ),
    input_rms=1.3e-200,
    branch_rms=1.3e-200,
    arriving=1.3e-200,
    branch_part=1.3e-200,
    jacobian=JacobianProfile(
        Estimate(-0.0081, 1.2e-200), Estimate(1.2e-200, 1.2e-200), Estimate(9998.0, 8765.0)
    ),
)

BLOCKS = {
    "residual": RESIDUAL,
    "scaled": SCALED,
    "plain": PLAIN,
    "zero": ZERO,
    "reshaping": RESHAPING,
}


def binomial(blocks: int, gain: float) -> tuple[float, ...]:
    return tuple(math.comb(blocks, j) * gain**j for j in range(blocks + 1))


FEW = PathProfile(4, (0.5681, 0.9132, 0.4402, 0.1021, 0.0087), 1.4321, 2.2e-16, None, "0")
MANY = PathProfile(100, binomial(100, 0.08), 1.08**100, 1.4e-15, None, "0")
SOME = PathProfile(20, (0.5681, 1.0812, 1.5241, 1.5432), 3.2941, None, 2.0123, "0")
NOTHING = PathProfile(3, (0.0, 0.0, 0.0, 0.0), 0.0, 0.0, None, "0")
CLEAN = PathProfile(3, (0.5681, 0.0, 0.0, 0.0), 0.5681, 0.0, None, "0")

PATHS = {"few": FEW, "many": MANY, "some": SOME, "clean": CLEAN}
