"""Rules → their list, or the explanation of one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from rich.text import Text

from gradprobe.render.canvas import SEVERITY_COLOURS, Style, grid, paint, wrapped
from gradprobe.verdict.rules.rule import Rule


def render_rules(rules: Sequence[Rule], style: Style) -> str:
    """One line a rule: code, name, severity, the first sentence of its explanation."""
    room = style.width - 38
    headers = [("code", "left"), ("name", "left"), ("severity", "left")]
    table = grid([*headers, ("", "left")] if room >= 20 else headers)
    for rule in rules:
        colour = SEVERITY_COLOURS[rule.severity]
        summary = rule.explanation.split("\n")[0]
        cells: list[str | Text] = [rule.code, rule.name, Text(str(rule.severity), style=colour)]
        if room >= 20:
            lines = wrapped(summary, Style(room - 2), 0)
            cells.append(summary if len(summary) <= room else lines[0] + " …")
        table.add_row(*cells)
    return paint([table], style)


def render_rule(rule: Rule, style: Style) -> str:
    """A rule's code, name and severity, and its docstring."""
    head = Text.assemble(
        (f"{rule.code} {rule.name}", "bold"),
        "  ",
        (str(rule.severity), SEVERITY_COLOURS[rule.severity]),
    )
    lines = []
    for paragraph in inspect.cleandoc(rule.explanation).split("\n\n"):
        lines += [
            "",
            *wrapped(style.safe(" ".join(paragraph.split())), Style(min(style.width, 88)), 0),
        ]
    return paint([head, *(Text(line) for line in lines)], style)
