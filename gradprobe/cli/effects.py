"""Which options have an effect on which kind of target; one without any is refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from gradprobe.cli.output import warn
from gradprobe.errors import InputError
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, is_target
from gradprobe.spec.options import OWN_LOSS
from gradprobe.spec.sources.stack import STACKS
from gradprobe.spec.sources.table import Target

# What a target of each kind is called, and several.
KINDS = {
    "stack": ("a built-in stack", "built-in stacks"),
    "spec": ("a spec", "specs"),
    "code": ("a Python model", "Python models"),
    "named": ("a model of an installed library", "models of libraries"),
    "config": ("a Hugging Face configuration", "Hugging Face configurations"),
    "report": ("an earlier report", "earlier reports"),
}
_STACK = "the stacks 'plain' and 'residual' are made of it"
_CODE = "a spec holds all that it needs; gradprobe probe package.module:name is a Python model"
_BUILT = "what its own code builds is in memory already"

# The kinds of target that an option is about, and what to say of the others. Those that are not
# listed are about every network; the first that has no effect is told.
EFFECTS: dict[str, tuple[str, str]] = {
    "depth": ("stack", f"{_STACK}; gradprobe sweep deepens a spec"),
    "width": ("stack", _STACK),
    "activation": ("stack", _STACK),
    "init": ("stack", f"{_STACK}; a spec has 'init:', Python code its own"),
    "gain": ("stack", _STACK),
    "norm": ("stack", _STACK),
    "zero_init": ("stack", f"{_STACK}; a spec has 'zero_init: true'"),
    "arg": ("code named", _CODE),
    "path": ("code named", _CODE),
    "input": ("code named", "a spec has 'input:', and --batch-size counts its samples"),
    "inputs": ("code named", _CODE),
    "allow_code": ("code", "nothing here runs code"),
    "train_mode": ("code named config", "what a spec describes is in train mode"),
    "layers": ("config", "a Python model has --arg, a stack --depth"),
    "set": ("config", "a Python model has --arg"),
    "rows": ("code named config", "a spec's rows are its layers"),
    "theory": ("stack spec", "it needs a network that is described in layers"),
    "by": ("stack spec", "--by position needs a spec, which says what mixes positions"),
    "data": ("stack spec code named", "its inputs follow from the configuration"),
    "batch_size": ("stack spec named config", "--input shape=… has the batch in it"),
    "max_parameters": ("stack spec named config", "a Python model is built by its own code"),
    "emit_spec": ("stack spec", "no spec describes it"),
    "stream": ("stack spec config", _BUILT),
    "boundaries": ("stack spec config", _BUILT),
    "timeout": ("code named", "what runs no code of yours is not stopped"),
    "trusted_in_process": ("code named", "what runs no code of yours has no process of its own"),
}
_NETWORKS = "stack spec code named config"
# What has an effect beside --emit-spec: a stack's options, and where the spec goes.
_EMITTED = set("target emit_spec output quiet verbose color".split())
_EMITTED |= {name for name, (about, _) in EFFECTS.items() if about == "stack"}
_MEASURING = "seed dtype device loss level blocks deep max_memory weights weights_prefix precision"
EFFECTS |= dict.fromkeys(_MEASURING.split(), (_NETWORKS, "a report is not measured anew"))


class Given(NamedTuple):
    """The options that were typed, by their parameters' names."""

    names: tuple[str, ...] = ()
    loss: str | None = None  # the value of --loss

    def require_effect(
        self, targets: Sequence[str], kinds: Sequence[str], except_for: Collection[str] = ()
    ) -> None:
        """Refuse an option that has no effect on any of the targets.

        Args:
            kinds: of the targets, as ``kind_of`` calls them.
            except_for: options that have an effect of their own in this command.

        Raises:
            InputError: there is one; the hint says what it is about.
        """
        for name, (about, hint) in EFFECTS.items():
            if name not in self.names or name in except_for or set(about.split()) & set(kinds):
                continue
            if name == "batch_size" and "data" in self.names:  # so many samples of the file
                continue
            flag = f"--{name.replace('_', '-')}"
            what = f"{targets[0]}, {KINDS[kinds[0]][0]}" if len(targets) == 1 else "these targets"
            several = [KINDS[kind][1] for kind in about.split()]
            of = " and ".join(several) if about != _NETWORKS else "networks"
            raise InputError(f"{flag} is for {of}: it has no effect on {what}", hint=hint)
        self._require_loss(targets, kinds)

    def require_trial(self, trial: bool) -> None:
        """Refuse the time of a trial where there is none.

        Raises:
            InputError: it was typed.
        """
        if "overfit_time" in self.names and not trial:
            raise InputError("--overfit-time is the time of a trial, and there is none: --overfit")

    def require_emitted(self) -> None:
        """Refuse what has no effect beside ``--emit-spec``.

        Raises:
            InputError: there is something.
        """
        for name in self.names:
            if name not in _EMITTED:
                raise _idle(name, "--emit-spec", "it prints the spec, and measures nothing")

    def require_steps(self, format: str, output: str | None) -> None:
        """Refuse ``--step`` where no steps are printed.

        Raises:
            InputError: the format is not text, or the text goes to a file.
        """
        beside = "--output" if output else f"--format {format}"
        if "step" in self.names and (output or format != "text"):
            raise _idle("step", beside, "it waits between the steps that a terminal shows")

    def _require_loss(self, targets: Sequence[str], kinds: Sequence[str]) -> None:
        """Refuse a function of a Python model's output, or a Hugging Face model's own loss, where
        no target has it; where some have, say which have another."""
        function = self.loss is not None and is_target(self.loss)
        if not function and self.loss != OWN_LOSS:
            return
        able = {"code", "named"} | (set() if function else {"config"})
        message = f"--loss {self.loss} is for {'Python' if function else 'Hugging Face'} models"
        if not able & set(kinds):
            message = f"{message}, and {targets[0]} is {KINDS[kinds[0]][0]}"
            raise InputError(message, hint="projection, cross_entropy or mse")
        pairs = zip(targets, kinds, strict=True)
        if others := [target for target, kind in pairs if kind not in able | {"report"}]:
            more = f", like {len(others) - 1} more," if len(others) > 1 else ""
            warn(f"{message}: {others[0]}{more} is measured by its own loss")


def _idle(name: str, beside: str, hint: str) -> InputError:
    """An option's parameter has no effect beside another option."""
    flag = f"--{name.replace('_', '-')}"
    return InputError(f"{flag} has no effect beside {beside}", hint=hint)


def kind_of(target: Target) -> str:
    """What kind of target a network was made of: a key of ``KINDS``."""
    if isinstance(target, CodeSpec):
        return "named" if target.library else "code"
    if isinstance(target, ArchitectureSpec):
        return "config"
    named = target.source in STACKS and not Path(target.source).is_file()
    return "stack" if named else "spec"
