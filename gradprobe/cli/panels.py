"""``--help`` with the options in panels, whose names no width cuts, and with examples."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

# Of a width: below it a text stands under its name, not beside it.
_NARROW, _BESIDE, _UNDER = 60, 30, 4


def _write(formatter: Any, name: str, rows: list[tuple[str, str]]) -> None:
    """One panel."""
    with formatter.section(name):
        formatter.write_dl(rows, _BESIDE if formatter.width >= _NARROW else _UNDER)


class PanelCommand(TyperCommand):
    """A command whose options stand under what they are about."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The arguments, then a section for each panel, in the order in which they come."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            panel = "Arguments" if parameter.param_type_name == "argument" else panel
            if record := parameter.get_help_record(ctx):
                panels.setdefault(panel, []).append(record)
        for name in sorted(panels, key=lambda panel: panel != "Arguments"):
            _write(formatter, name, panels[name])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, each on a line of its own, however long it is."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog)


class PanelGroup(TyperGroup):
    """The commands, each with its whole first sentence."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records = [parameter.get_help_record(ctx) for parameter in self.get_params(ctx)]
        _write(formatter, "Options", [record for record in records if record])
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        helps = [(self.get_command(ctx, name), name) for name in names]
        rows = [(name, command.get_short_help_str(200)) for command, name in helps if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
