"""Norms and activation statistics, right over the whole range of each dtype."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.handmade import near
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradprobe.measure.norms import activation_stats, norms

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

quick = settings(derandomize=True, max_examples=60, deadline=None)


def one(values: object, dtype: torch.dtype = F64) -> float:
    return norms([torch.tensor(values, dtype=dtype)])[0]


def dependence(values: object, dtype: torch.dtype = F64) -> float | None:
    return activation_stats([torch.tensor(values, dtype=dtype)])[0].input_dependence


def oracle(tensor: Tensor) -> float:
    """``math.hypot`` scales, so it neither under- nor overflows."""
    return math.hypot(*tensor.detach().to_dense().double().flatten().tolist())


# ---- the whole range

RANGES = [
    *((F64, 10.0**power) for power in (-300, -200, -160, -20, 0, 20, 150, 200, 300)),
    *((F32, 10.0**power) for power in (-40, -38, -30, -23, -13, -6, 0, 6, 18, 19, 25, 36)),
    *((BF16, 10.0**power) for power in (-40, -38, -23, 0, 18, 25, 36)),
    *((F16, 10.0**power) for power in (-7, -4, 0, 3, 4)),
]


@pytest.mark.parametrize("count", [1, 5, 3000, 40_000], ids="n={}".format)
@pytest.mark.parametrize(("dtype", "scale"), RANGES)
def test_a_norm_is_right_where_its_squares_under_or_overflow(
    dtype: torch.dtype, scale: float, count: int
) -> None:
    values = torch.linspace(0.5, 1.5, count, dtype=F64) * scale
    tensor = values.to(dtype)
    assert torch.isfinite(tensor).all()
    expected = near(oracle(tensor), 1e-6)
    assert norms([tensor]) == [expected]
    assert norms([tensor, tensor * 0, tensor.clone()]) == [expected, 0.0, expected]


def test_the_largest_and_smallest_numbers_of_a_dtype_have_a_norm() -> None:
    for dtype in (F32, F64, BF16, F16):
        info = torch.finfo(dtype)
        assert one([info.max], dtype) == info.max
        assert one([info.tiny], dtype) == info.tiny
        assert one([info.tiny * info.eps], dtype) == info.tiny * info.eps  # subnormal


def test_the_norm_of_a_float32_tensor_may_pass_float32_s_range() -> None:
    assert norms([torch.full((10_000,), 3e38)]) == [pytest.approx(3e40, rel=1e-6)]


def test_small_and_large_numbers_in_one_tensor() -> None:
    assert one([1e-30, 3.0, 4.0, 1e-38], F32) == pytest.approx(5.0, rel=1e-7)
    assert one([1e25, 1e-25, 1.0], F32) == pytest.approx(1e25, rel=1e-6)
    assert one([3e-25] * 4, F32) == pytest.approx(6e-25, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([math.nan, 1.0], math.nan), ([math.inf, 1.0], math.inf), ([-math.inf], math.inf)],
)
@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16])
@pytest.mark.parametrize("copies", [1, 3])
def test_nan_and_infinity_stay_what_they_are(
    values: list[float], expected: float, dtype: torch.dtype, copies: int
) -> None:
    tensor = torch.tensor(values, dtype=dtype)
    found = norms([tensor] * copies + [torch.ones_like(tensor)])
    assert found[:-1] == [pytest.approx(expected, nan_ok=True)] * copies
    assert found[-1] == pytest.approx(math.sqrt(len(values)))  # one of them spoils no other


def test_nan_beside_infinity_is_nan() -> None:
    assert math.isnan(one([math.inf, math.nan, 1.0]))


def test_an_empty_tensor_and_no_tensor_at_all() -> None:
    assert norms([torch.empty(0), torch.empty(3, 0), torch.empty(0)]) == [0.0, 0.0, 0.0]
    assert norms([]) == []
    assert activation_stats([]) == []


def test_scalars_have_norms() -> None:
    assert norms([torch.tensor(-2.0)]) == [2.0]
    assert norms([torch.tensor(-2.0), torch.tensor(3.0)]) == [2.0, 3.0]


def test_a_mixed_list_keeps_its_order() -> None:
    tensors = [
        torch.full((2, 2), 3.0),
        torch.full((4,), 1e-30),
        torch.full((2, 2), 1e30, dtype=F64),
        torch.empty(0),
        torch.full((2, 2), 0.5),
        torch.full((2, 2), 2.0, dtype=BF16),
        torch.tensor(7.0),
        torch.full((300, 300), 1.0),
        torch.full((2, 2), 1e-25),
    ]
    assert norms(tensors) == pytest.approx(
        [6, 2e-30, 2e30, 0, 1, 4, 7, 300, 2e-25], rel=1e-6, abs=0
    )


@pytest.mark.parametrize("shape", [(7, 5), (300, 400)])
def test_a_tensor_that_is_not_contiguous(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for view in (x.T, x[:, ::2], x.flip(0), x[:1].expand(shape), x.new_full((), 2.0).expand(shape)):
        assert norms([view]) == [pytest.approx(oracle(view), rel=1e-6)]
        assert norms([view, view]) == [pytest.approx(oracle(view), rel=1e-6)] * 2


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
@pytest.mark.parametrize("rows", [10, 100_000])
def test_a_sparse_gradient_adds_up_repeated_rows(scale: float, rows: int) -> None:
    indices = torch.tensor([[3, 3, 7]])
    values = torch.tensor([[1.0, 2.0], [2.0, 2.0], [0.0, 12.0]]) * scale
    sparse = torch.sparse_coo_tensor(indices, values, (rows, 2), check_invariants=True)
    expected = scale * math.hypot(3, 4, 12)
    assert norms([sparse, sparse]) == pytest.approx([expected] * 2, rel=1e-6, abs=0)


def test_a_sparse_gradient_of_nothing_is_zero() -> None:
    indices, values = torch.empty(1, 0, dtype=torch.long), torch.empty(0, 2)
    empty = torch.sparse_coo_tensor(indices, values, (10, 2), check_invariants=True)
    assert norms([empty]) == [0.0]


@pytest.mark.parametrize("kind", ["equal", "normal", "spread", "transposed"])
def test_ten_million_elements_are_summed_to_six_digits(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    size = 10_000_000
    if kind == "equal":
        x = torch.full((size,), 0.1)
    elif kind == "spread":
        x = torch.logspace(-4, 4, size)
    else:
        x = torch.randn(size, generator=generator)
    x = x.reshape(2500, 4000).T if kind == "transposed" else x
    expected = float(torch.linalg.vector_norm(x.flatten(), dtype=F64))
    assert norms([x]) == [pytest.approx(expected, rel=1e-6)]


def test_norms_leave_their_tensors_alone() -> None:
    tensors = [torch.randn(4, 4), torch.full((4, 4), 1e-30), torch.randn(200, 200)]
    copies = [t.clone() for t in tensors]
    norms(tensors)
    activation_stats(tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))


numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e290, max_value=1e290)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


@quick
@given(st.lists(numbers, max_size=30))
def test_in_float64_a_norm_is_hypot(values: list[float]) -> None:
    assert one(values) == pytest.approx(math.hypot(*values), rel=1e-13, abs=5e-324)


@quick
@given(st.lists(st.lists(singles, min_size=3, max_size=3), min_size=1, max_size=6))
def test_in_float32_a_norm_is_hypot_of_the_same_numbers(rows: list[list[float]]) -> None:
    found = norms([torch.tensor(values) for values in rows])
    for norm, values in zip(found, rows, strict=True):
        assert norm == pytest.approx(math.hypot(*values), rel=1e-6, abs=0)


@quick
@given(st.lists(numbers, min_size=1, max_size=10), st.floats(1e-9, 1e9), st.sampled_from([1, -1]))
def test_a_norm_scales_and_orders_as_norms_do(values: list[float], c: float, sign: int) -> None:
    x = torch.tensor(values, dtype=F64)
    norm = norms([x])[0]
    assert norm >= 0
    assert norms([x * (sign * c)])[0] == pytest.approx(c * norm, rel=1e-12, abs=1e-320)
    assert norm >= max(map(abs, values)) * (1 - 1e-15)
    assert norms([x.flip(0)])[0] == pytest.approx(norm, rel=1e-13, abs=5e-324)


# ---- RMS and zeros


@pytest.mark.parametrize(("dtype", "scale"), RANGES)
def test_the_rms_is_right_over_the_whole_range(dtype: torch.dtype, scale: float) -> None:
    x = (torch.linspace(0.5, 1.5, 60, dtype=F64) * scale).to(dtype).reshape(6, 10)
    expected = oracle(x) / math.sqrt(60)
    found = activation_stats([x, x])
    assert [stats.rms for stats in found] == [pytest.approx(expected, rel=1e-5, abs=0)] * 2


def test_the_fraction_of_zeros_counts_exact_zeros_alone() -> None:
    x = torch.tensor([[0.0, -0.0, 1e-40, 1.0], [0.0, 2.0, -1.0, 1e-45]])
    assert activation_stats([x])[0].zero_fraction == pytest.approx(3 / 8)
    assert activation_stats([torch.zeros(3, 4)])[0] == (0.0, 0.0, 1.0)
    assert activation_stats([torch.ones(3, 4)])[0].zero_fraction == 0.0


def test_one_number_among_a_million_zeros_is_not_all_zeros() -> None:
    x = torch.zeros(1000, 1000)
    assert activation_stats([x])[0].zero_fraction == 1.0
    x[500, 500] = 1e-30
    assert activation_stats([x])[0].zero_fraction < 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_output_that_is_not_finite_says_so_in_its_rms(value: float) -> None:
    bad, good = torch.ones(4, 3), torch.ones(4, 3)
    bad[1, 2] = value
    stats = activation_stats([good, bad, good])
    assert not math.isfinite(stats[1].rms)
    assert stats[1].input_dependence is None
    assert stats[0] == stats[2] == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0), (5,), (1, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("copies", [1, 2])
def test_outputs_of_any_shape_have_statistics(shape: tuple[int, ...], copies: int) -> None:
    for stats in activation_stats([torch.ones(shape)] * copies):
        assert stats.rms == (0.0 if 0 in shape else 1.0)
        assert stats.zero_fraction == 0.0


# ---- input dependence


def random(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64).to(dtype)


@pytest.mark.parametrize("dtype", [F32, F64, BF16, F16])
def test_identical_inputs_depend_on_nothing(dtype: torch.dtype) -> None:
    x = random(1, 50, dtype=dtype).expand(32, 50)
    for stats in activation_stats([x, x.clone()]):
        assert stats.input_dependence == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [F32, F64, BF16])
def test_independent_inputs_have_a_dependence_near_one(dtype: torch.dtype) -> None:
    [stats] = activation_stats([random(64, 500, dtype=dtype)])
    assert stats.input_dependence == pytest.approx(1 - 1 / 64, abs=0.01)


def test_features_of_opposite_sign_depend_fully() -> None:
    assert dependence([[1.0, -2.0], [-1.0, 2.0]]) == 1.0


def test_the_dependence_is_the_variance_over_the_mean_square() -> None:
    assert dependence([[1.0], [3.0]]) == pytest.approx(1 / 5)  # variance 1, mean square 5
    assert dependence([[1.0, 1.0], [3.0, -1.0]]) == pytest.approx((1 / 5 + 1) / 2)


def test_a_dead_feature_counts_as_zero() -> None:
    assert dependence([[1.0, 0.0], [-1.0, 0.0]]) == 0.5
    assert dependence([[0.0, 0.0], [0.0, 0.0]]) == 0.0


@pytest.mark.parametrize("size", [1e-20, 1e-25, 1e-30])
def test_a_tiny_feature_beside_a_large_one_is_not_dead(size: float) -> None:
    x = torch.tensor([[1.0, size], [-1.0, -size]])
    assert [s.input_dependence for s in activation_stats([x, x])] == pytest.approx([1.0, 1.0])


def test_a_batch_of_one_has_no_dependence() -> None:
    assert [s.input_dependence for s in activation_stats([torch.ones(1, 4)] * 2)] == [None, None]
    assert activation_stats([torch.zeros(1, 4)])[0].input_dependence is None


@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_small_spread_about_a_large_mean_keeps_its_digits(
    dtype: torch.dtype, spread: float
) -> None:
    x = (1 + spread * random(32, 200)).to(dtype)
    exact = x.double()
    expected = float((exact.var(0, correction=0) / exact.square().mean(0)).mean())
    for stats in activation_stats([x, x]):
        assert stats.input_dependence == pytest.approx(expected, rel=1e-3)


def test_positions_of_a_sequence_are_features() -> None:
    x = random(8, 1, 5).expand(8, 7, 5)
    flat = activation_stats([random(8, 1, 5).reshape(8, 5)])[0].input_dependence
    assert activation_stats([x])[0].input_dependence == pytest.approx(flat)


@quick
@given(
    st.lists(st.lists(singles, min_size=2, max_size=2), min_size=1, max_size=5),
    st.sampled_from([F32, F64]),
)
def test_statistics_agree_with_float64_arithmetic_and_stay_in_range(
    rows: list[list[float]], dtype: torch.dtype
) -> None:
    x = torch.tensor(rows, dtype=dtype)
    exact = x.double()
    ratios = []
    for column in exact.T:
        scaled = column / column.abs().max() if column.abs().max() > 0 else column
        square = scaled.square().mean()
        ratios.append(float(scaled.var(correction=0) / square) if square > 0 else 0.0)
    expected = sum(ratios) / len(ratios) if len(rows) > 1 else None
    for stats in activation_stats([x, x]):
        assert stats.input_dependence == near(expected, 1e-3, 1e-5)
        assert stats.input_dependence is None or 0 <= stats.input_dependence <= 1
        assert stats.rms == pytest.approx(oracle(x) / math.sqrt(x.numel()), rel=1e-5, abs=0)
        assert stats.zero_fraction == pytest.approx(float((x == 0).double().mean()))


@quick
@given(st.floats(1e-20, 1e20), st.permutations(range(6)))
def test_dependence_ignores_scale_and_order(scale: float, order: list[int]) -> None:
    x = random(6, 9)
    [expected] = activation_stats([x])
    [found] = activation_stats([x[order] * scale])
    assert found.input_dependence == pytest.approx(expected.input_dependence, rel=1e-10)
    assert found.rms == pytest.approx(expected.rms * scale, rel=1e-12)


@pytest.mark.parametrize("count", [1, 300, 2**18 + 1], ids="n={}".format)
@pytest.mark.parametrize("power", [-300, -200, -160, -100, -15, 0, 100, 145])
def test_dependence_is_the_same_over_all_of_float64_s_range(power: int, count: int) -> None:
    """1 and 2 have variance 1/4 and mean square 5/2: a dependence of 1/10 at any scale."""
    column = torch.tensor([1.0, 2.0], dtype=F64) * 10.0**power
    x = column[:, None].expand(2, count)
    for stats in activation_stats([x]) + activation_stats([x, x]):
        assert stats.input_dependence == pytest.approx(0.1, rel=1e-9)
        assert stats.rms == pytest.approx(math.sqrt(2.5) * 10.0**power, rel=1e-9, abs=0)
    beside = torch.stack([column, torch.tensor([1.0, -1.0], dtype=F64)], 1)
    [stats] = activation_stats([beside])
    assert stats.input_dependence == pytest.approx((0.1 + 1) / 2, rel=1e-9)


def test_a_large_tensor_has_the_statistics_of_its_whole() -> None:
    """Above 2^19 elements it is taken slice by slice, of features with scales of their own."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-3, 3, 100_003)
    x = torch.randn(7, 100_003, generator=generator) * scales
    x[:, ::5] = 0
    x[:, 1::5] = 3.0
    [found] = activation_stats([x])
    exact = x.double()
    mean_square = exact.square().mean(0)
    ratio = exact.var(0, unbiased=False) / mean_square.where(mean_square > 0, 1.0)
    assert found.rms == near(float(exact.square().mean().sqrt()), 1e-6)
    assert found.input_dependence == near(float(ratio.mean()), 1e-5)
    assert found.zero_fraction == near(float((x == 0).double().mean()), 1e-6)
    assert activation_stats([x[:1]])[0].input_dependence is None
