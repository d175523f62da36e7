"""``gradprobe rules``: what each rule means."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli.flatten import Fields, flattened
from gradprobe.cli.output import OutputOptions
from gradprobe.errors import InputError, suggestion
from gradprobe.render.json import render_rules as render_json
from gradprobe.render.rules import render_rule, render_rules
from gradprobe.verdict.rules.table import BY_NAME, RULES


@flattened()
def rules(
    code: Annotated[str | None, typer.Argument(help="A code or a name: GP101.")] = None,
    *,
    output: Annotated[OutputOptions, Fields("format output color talk")],
) -> int:
    """List the rules, or explain one."""
    style = output.style
    wanted = (code or "").strip().lower()
    chosen = [rule for rule in RULES if code is None or wanted in (rule.code.lower(), rule.name)]
    if chosen:
        if output.format == "json":
            output.emit(render_json(chosen))
        else:
            output.emit(render_rule(chosen[0], style) if code else render_rules(RULES, style))
        return 0
    assert code is not None
    hint = suggestion(code, BY_NAME) or "gradprobe rules lists them"
    raise InputError(f"no rule '{code}'", hint=hint)
