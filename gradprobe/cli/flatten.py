"""Dataclasses of options → the flat signature that typer reads, and back to dataclasses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import typer

from gradprobe.cli.effects import Given
from gradprobe.spec.options import Shown

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


# The panel of ``--help`` that a dataclass's options stand in.
PANELS = {
    "StackOptions": "Built-in stacks",
    "CodeOptions": "Python models",
    "RunOptions": "Python models",
    "ArchitectureOptions": "Hugging Face configurations",
    "ProbeOptions": "Measurement",
    "WeightsOptions": "Measurement",
    "Limits": "Limits",
    "CheckOptions": "Judgement",
    "ConfigOptions": "Configuration",
    "BaselineOptions": "Baseline",
    "WorkOptions": "Work",
    "SeedOptions": "Measurement",
    "OutputOptions": "Output",
    "PublishOptions": "Output",
    "Talk": "Output",
}


class Fields(NamedTuple):
    """What a command makes of a dataclass: ``Annotated[ProbeOptions, Fields("seed", "dtype")]``.

    ``only`` names the fields that are offered, in words; ``changed`` has others in their place,
    made with ``option``.
    """

    only: str = ""  # empty: all
    changed: Mapping[str, Field[Any]] = {}


class _Option(NamedTuple):
    """One option of the command line, and the field that it fills."""

    field: str
    default: Any  # the field's
    parameter: inspect.Parameter
    shown: Shown

    def value(self, typed: Any) -> Any:
        """The field's value of what was typed."""
        if self.shown.choices:
            return str(typed)
        return self.shown.read(typed) if self.shown.read else typed


class _Group(NamedTuple):
    """A dataclass with its options, and the dataclasses inside it; ``make`` builds it."""

    make: Callable[..., Any]
    options: tuple[_Option, ...]
    inside: Mapping[str, _Group]

    def parameters(self) -> Iterator[inspect.Parameter]:
        yield from (option.parameter for option in self.options)
        for group in self.inside.values():
            yield from group.parameters()

    def built(self, typed: Mapping[str, Any]) -> Any:
        """The dataclass; what was not typed keeps its default."""
        values = {name: group.built(typed) for name, group in self.inside.items()}
        for option in self.options:
            value = typed.get(option.parameter.name)
            if value is not None:
                values[option.field] = option.value(value)
            elif option.default is None:
                values[option.field] = None
        return self.make(**values)


def flattened(
    follow: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """A decorator: typer sees the fields of the options dataclasses that a command takes.

    A parameter that is annotated ``Annotated[dict[str, object], Class]`` gets those fields of the
    class alone that are typed, as a dictionary. A parameter of the command's own takes the place of
    a field of the same name.

    Args:
        follow: the names of parameters, and in words those that ``--help`` lists after each.
    """

    def decorated(command: Callable[..., int]) -> Callable[..., int]:
        hints = get_type_hints(command, include_extras=True)
        parameters = inspect.signature(command).parameters
        groups = {name: group for name in parameters if (group := _group_of(hints[name]))}
        given = next((name for name in parameters if hints[name] is Given), None)
        own = {
            name: parameter.replace(annotation=hints[name], kind=_KEYWORD)
            for name, parameter in parameters.items()
            if name not in groups and name != given
        }
        flat = _flat(list(parameters), groups, own)
        for anchor, words in (follow or {}).items():
            flat = _moved(flat, [name for name in words.split() if name in flat], anchor)

        @wraps(command)
        def run(**typed: Any) -> int:
            values: dict[str, Any] = {given: _given(typed.pop("context"))} if given else {}
            values |= {name: typed.pop(name) for name in own}
            values |= {name: group.built(typed) for name, group in groups.items()}
            return command(**values)

        run.__signature__ = inspect.Signature(list(flat.values()))  # type: ignore[attr-defined]
        run.__annotations__ = {entry.name: entry.annotation for entry in flat.values()}
        return run

    return decorated


def _flat(
    names: list[str], groups: Mapping[str, _Group], own: Mapping[str, inspect.Parameter]
) -> dict[str, inspect.Parameter]:
    """The parameters that typer sees; its context stands where the command takes a ``Given``."""
    context = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)
    flat: dict[str, inspect.Parameter] = {}
    for name in names:
        entries = groups[name].parameters() if name in groups else [own.get(name, context)]
        flat |= {entry.name: own.get(entry.name, entry) for entry in entries}
    return flat


def _given(context: typer.Context) -> Given:
    """The options that the user typed."""
    sources: dict[str, Any] = {n: context.get_parameter_source(n) for n in context.params}
    typed = [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    return Given(tuple(typed), context.params.get("loss"))


def _moved(
    flat: Mapping[str, inspect.Parameter], names: list[str], anchor: str
) -> dict[str, inspect.Parameter]:
    """``flat`` in another order: ``names`` come after ``anchor``."""
    order = [name for name in flat if name not in names]
    place = order.index(anchor) + 1
    return {name: flat[name] for name in (*order[:place], *names, *order[place:])}


def _group_of(annotation: Any) -> _Group | None:
    """The options of a parameter that is annotated with a dataclass; ``None`` of any other."""
    kind, *extras = get_args(annotation) if get_origin(annotation) is Annotated else [annotation]
    if extras and isinstance(extras[0], type) and is_dataclass(extras[0]):
        return _group(extras[0], Fields(), make=dict)
    if not is_dataclass(kind):
        return None
    return _group(kind, extras[0] if extras else Fields())


def _group(kind: Any, chosen: Fields, make: Callable[..., Any] | None = None) -> _Group:
    hints = get_type_hints(kind)
    options, inside = [], {}
    for field in fields(kind):
        if chosen.only and field.name not in chosen.only.split():
            continue
        if is_dataclass(hints[field.name]):
            inside[field.name] = _group(hints[field.name], Fields())
        entry = chosen.changed.get(field.name, field)
        shown = entry.metadata.get("shown")
        if shown:
            default = MISSING if make else entry.default
            panel = shown.panel or PANELS.get(kind.__name__)
            options.append(_option(field.name, hints[field.name], default, shown, panel))
    return _Group(make or kind, tuple(options), inside)


def _option(field: str, hint: Any, default: Any, shown: Shown, panel: str | None) -> _Option:
    flags = shown.flags or (f"--{field.replace('_', '-')}",)
    long = next(flag for flag in flags if flag.startswith("--"))
    kind = shown.kind or hint
    typed = None if default in (MISSING, ()) else default
    typed = shown.typed if typed is not None and shown.typed is not None else typed
    if shown.choices:
        words = StrEnum("Words", [(word, word) for word in shown.choices])  # type: ignore[misc]
        kind, typed = words, None if typed is None else words(typed)
    told = typer.Option(
        *flags,
        help=shown.help,
        metavar=shown.metavar,
        min=shown.least,
        max=shown.most,
        rich_help_panel=panel,
    )
    parameter = inspect.Parameter(
        long.removeprefix("--").partition("/")[0].replace("-", "_"),
        _KEYWORD,
        default=typed,
        annotation=Annotated[kind if typed is not None else kind | None, told],
    )
    return _Option(field, default, parameter, shown)
