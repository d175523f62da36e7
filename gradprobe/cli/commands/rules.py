"""``gradprobe rules``: what each rule means."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli.flatten import Fields, flattened
from gradprobe.cli.output import OutputOptions, emit
from gradprobe.errors import InputError, suggestion
from gradprobe.render.rules import render_rule, render_rules
from gradprobe.verdict.rules.table import BY_CODE, BY_NAME, RULES


@flattened()
def rules(
    code: Annotated[str | None, typer.Argument(help="A code or a name: GP101.")] = None,
    *,
    output: Annotated[OutputOptions, Fields("color")],
) -> int:
    """List the rules, or explain one."""
    style = output.style
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
