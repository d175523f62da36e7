"""``gradprobe rules``: what each rule means."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.output import emit, style_for
from gradprobe.errors import InputError, suggestion
from gradprobe.render.rules import render_rule, render_rules
from gradprobe.verdict.rules.table import BY_CODE, BY_NAME, RULES


def rules(
    code: Annotated[str | None, typer.Argument(help="A code or a name: GP101.")] = None,
    color: o.ColorOption = o.Color.AUTO,
) -> int:
    """List the rules, or explain one."""
    style = style_for(color, None)
    if code is None:
        emit(render_rules(RULES, style))
        return 0
    wanted = code.strip().lower()
    for rule in RULES:
        if wanted in (rule.code.lower(), rule.name):
            emit(render_rule(rule, style))
            return 0
    known = ", ".join(BY_CODE)
    hint = suggestion(code, BY_NAME) or f"known: {known}"
    raise InputError(f"no rule '{code}'", hint=hint)
