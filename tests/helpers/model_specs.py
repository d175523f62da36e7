"""What each network of model_specs/ is expected to give."""

from __future__ import annotations

import math
from typing import NamedTuple


class Expected(NamedTuple):
    """Verdict, reach within a ``factor``, and the number of parameters, to the last one."""

    verdict: str
    reach: float
    factor: float
    parameters: int


EXPECTED = {
    # closed forms: the factor per layer is 0.141, 1/√6, 1, 1 and √(1 + 1/1000)
    "plain_sigmoid.yaml": Expected("vanishing", 0.141**20, 5, 348_042),
    "plain_relu.yaml": Expected("vanishing", 6**-10, 5, 348_042),
    "plain_relu_he.yaml": Expected("healthy", 1, 2, 348_042),
    "residual_zero_init.yaml": Expected("healthy", 1, 1, 836_810),
    "residual_1000.yaml": Expected("healthy", math.sqrt(math.e), 1.25, 8_324_810),
    # as measured, over several seeds and batch sizes
    "residual_mlp.yaml": Expected("healthy", 2, 2, 802_122),
    "transformer_prenorm.yaml": Expected("healthy", 0.9, 1.5, 2_397_322),
    "transformer_postnorm.yaml": Expected("healthy", 0.45, 2, 2_397_066),
    "gpt2_small.yaml": Expected("healthy", 53, 1.5, 162_250_752),
    "lstm_100.yaml": Expected("vanishing", 1e-21, 1e3, 38_090),
    "densenet_like.yaml": Expected("healthy", 0.65, 1.5, 769_162),
    "resnet18.yaml": Expected("healthy", 3.7, 1.5, 11_689_512),
    "resnet50.yaml": Expected("weak", 113, 1.5, 25_557_032),
    "resnet110_cifar.yaml": Expected("healthy", 78, 2, 1_730_714),
}
