"""What ``gradprobe block`` and ``gradprobe paths`` do: one network taken apart."""

from __future__ import annotations

from gradprobe.measure.blocks.profile import BlockProfile, PathProfile
from gradprobe.spec.network import ArchitectureSpec, NetworkSpec
from gradprobe.spec.options import ProbeOptions


def block(spec: NetworkSpec, options: ProbeOptions, row: str | None) -> BlockProfile:
    """One block of the network of ``spec`` with its real numbers.

    Args:
        row: its name; by default the middle residual block, or the middle row with weights.

    Raises:
        InputError, ModelError: as ``probe_target``; there is no such block.
    """
    from gradprobe.measure.take import take_block
    from gradprobe.model.make import make

    return take_block(make(spec, options), row)


def paths(
    spec: NetworkSpec | ArchitectureSpec, options: ProbeOptions, max_paths: int | None
) -> PathProfile:
    """The gradient at the first row of the trunk as a sum over paths.

    Args:
        max_paths: leave out paths through more branches.

    Raises:
        InputError, ModelError: as ``probe_target``; there is no residual block.
    """
    from gradprobe.measure.take import take_paths
    from gradprobe.model.make import make

    return take_paths(make(spec, options), max_paths)
