"""``--help`` with the options in panels, whose names no width cuts, and with examples."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


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
            with formatter.section(name):
                formatter.write_dl(panels[name])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, each on a line of its own, however long it is."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog)
