"""A target of any kind → what mends it: a spec's text is edited, of all else it is said."""

from __future__ import annotations

from typing import NamedTuple

from gradprobe.errors import InputError
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, is_script, is_target
from gradprobe.spec.options import ProbeOptions, RunOptions
from gradprobe.spec.sources import huggingface, named
from gradprobe.spec.sources.python import completed
from gradprobe.spec.sources.table import Target, TargetOptions
from gradprobe.tasks.fix import by_hand, search
from gradprobe.tasks.fix.trials import Fix
from gradprobe.tasks.read_report import is_report
from gradprobe.tasks.targets import load_target


class Network(NamedTuple):
    """A network to mend: its name, what it is, and a spec's text, which may be edited."""

    target: str
    spec: Target
    text: str = ""


def read(target: str, about: TargetOptions, *, write: bool = False) -> Network:
    """The network that ``target`` names, with its text where it is described in layers.

    Raises:
        InputError: there is no such target, or ``write`` asks for a file and it is none.
    """
    named_code = is_target(target) or is_script(target) or named.is_named(target)
    by_hand = named_code or huggingface.is_config(target)
    if write and (by_hand or not search.is_file(target)):
        is_stack = not by_hand and target != "-"
        hint = f"gradprobe probe {target} --emit-spec -o net.yaml" if is_stack else ""
        raise InputError(f"--write: {target} is no file that could be changed", hint=hint)
    if by_hand or is_report(target):
        return Network(target, load_target(target, about))
    spec, text = search.read(target, about.stack)
    if isinstance(spec, CodeSpec):
        return Network(target, completed(spec, about.code))
    return Network(target, spec, text)


def mend(
    network: Network,
    options: ProbeOptions,
    seeds: tuple[int, ...],
    run: RunOptions,
    everything: bool,
) -> Fix:
    """What mends it, by ``search`` for a spec, and by ``by_hand`` for all else.

    Raises:
        InputError, ModelError: the network itself cannot be built or run.
    """
    if isinstance(network.spec, CodeSpec | ArchitectureSpec):
        return by_hand.mend(network.spec, options, seeds, run, everything=everything)
    return search.mend(network.spec, network.text, options, seeds, everything=everything)
