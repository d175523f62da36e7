"""Short paths dominate in ResNet-110.

Claim: of the 2^54 paths through the 54 blocks of a ResNet-110 most go through about 27 branches,
and the gradient comes from much shorter ones: in the trained network almost all of it from paths
through 5 to 17 (Veit et al. 2016, arXiv 1605.06431, who sampled). Measured, exactly, at He's init
and so before training: ``gradprobe paths model_specs/resnet110_cifar.yaml``. Asserted is what does
not need training: both ends of the range that carries 95 % lie below those of the paths
themselves, and the mean at least two standard deviations of a path's length below theirs.
"""

from __future__ import annotations

import math
from pathlib import Path

from gradprobe.measure.blocks.profile import PathProfile
from gradprobe.spec.options import ProbeOptions
from gradprobe.tasks.probe import paths as expand
from gradprobe.tasks.targets import load_spec

RESNET = str(Path(__file__).parents[2] / "model_specs" / "resnet110_cifar.yaml")


def main() -> None:
    paths = expand(load_spec(RESNET), ProbeOptions(dtype="float64", batch_size=2), None)
    n = paths.blocks
    # All paths, each with the same weight.
    counted = PathProfile(n, tuple(float(math.comb(n, j)) for j in range(n + 1)), 0, 0, None, "0")
    assert counted.mean_length is not None
    assert paths.mean_length is not None
    below = counted.mean_length - paths.mean_length
    deviations = below / (math.sqrt(n) / 2)
    print(f"{'':34}{'mean':>6}{'95 % range':>12}")
    rows = (("all paths", counted), ("what the gradient comes through", paths))
    for label, one in rows:
        low, high = one.effective or (0, 0)
        print(f"{label:34}{one.mean_length:>6.1f}{f'{low} to {high}':>12}")
    print(f"{'Veit et al., trained':34}{'':6}{'5 to 17':>12}")
    print(f"{deviations:.1f} standard deviations below; groups sum to {paths.error:.0e}")
    assert deviations >= 2
    assert (paths.effective or (n, n))[0] < (counted.effective or (0, 0))[0]
    assert (paths.effective or (n, n))[1] < (counted.effective or (0, 0))[1]


if __name__ == "__main__":
    main()
