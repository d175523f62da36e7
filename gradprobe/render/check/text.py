"""The check's result → lines for people: one a finding, or each with its line and what to do."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from gradprobe.errors import ExitCode, Place, caret_lines, printable
from gradprobe.numbers import name, plural
from gradprobe.render.canvas import (
    BAD,
    FAINT,
    GOOD,
    NARROW,
    SEVERITY_COLOURS,
    Style,
    folded,
    more,
    paint,
    wrapped,
)
from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome


def render_concise(result: CheckResult, style: Style) -> str:
    """``path:line:column: GP101 vanishing: message``, one line each, and a summary.

    Of a target that could not be checked it says what to do too. Where the style is narrower than
    a finding, it goes on in the next line, indented.
    """
    lines: list[Text] = []
    for outcome in result.outcomes:
        shown, rest = _shown(outcome, style)
        failed = outcome.exit_code >= ExitCode.USAGE
        heads = [_head(d, style, _story(d, failed)) for d in shown]
        if rest:
            path = style.safe(printable(outcome.path))
            heads.append(Text.assemble((path, "bold"), (f": {rest}", FAINT)))
        lines += [line for head in heads for line in _folded(head, style)]
    return paint([*lines, _summary(result, style)], style)


def render_full(result: CheckResult, style: Style) -> str:
    """Each finding with its line of the file, a caret, and what to do about it."""
    parts: list[Text] = []
    for outcome in result.outcomes:
        shown, rest = _shown(outcome, style)
        for diagnostic in shown:
            parts += [*_whole(diagnostic, style), Text("")]
        if rest:
            parts += [*(Text(line, FAINT) for line in wrapped(rest, style, 0)), Text("")]
    return paint([*parts, _summary(result, style)], style)


def _shown(outcome: Outcome, style: Style) -> tuple[list[Diagnostic], str]:
    """The findings of one target that are shown, and a line that names the others."""
    counted = [diagnostic for diagnostic in outcome.diagnostics if diagnostic.counts]
    rest = [f"{diagnostic.rule} {diagnostic.name}" for diagnostic in counted[style.most :]]
    return counted[: style.most], more(rest) if rest else ""


def _whole(diagnostic: Diagnostic, style: Style) -> list[Text]:
    place = Place(diagnostic.path, diagnostic.line, diagnostic.column)
    carets = caret_lines(diagnostic.excerpt, place) if diagnostic.excerpt else []
    message = wrapped(style.safe(diagnostic.message), style, 4)
    advice = diagnostic.advice and wrapped(style.safe(diagnostic.advice), style, 4, "  →")
    sure = f", {diagnostic.certainty}" if diagnostic.certainty else ""
    row = f", {diagnostic.unit} {name(style.safe(diagnostic.row), 24)}" if diagnostic.row else ""
    head = _head(diagnostic, style, sure + row)
    faint = [Text(style.safe(line), FAINT) for line in carets]
    heads = _folded(head, style) if style.width < NARROW else [head]
    return [*heads, *faint, *(Text(line) for line in (*message, *advice))]


def _folded(text: Text, style: Style) -> list[Text]:
    """A coloured line in lines within the width, between words; the first keeps its colours."""
    if cell_len(text.plain) <= style.width:
        return [text]
    first, *rest = folded(text.plain, style.width, "    ")
    return [text[: len(first)], *map(Text, rest)]


def _story(diagnostic: Diagnostic, failed: bool) -> str:
    advice = f" ({diagnostic.advice})" if failed and diagnostic.advice else ""
    return f": {diagnostic.message}{advice}"


def _head(diagnostic: Diagnostic, style: Style, story: str) -> Text:
    rule = f"{diagnostic.rule} {diagnostic.name}"
    return Text.assemble(
        (style.safe(printable(diagnostic.path)), "bold"),
        (f":{diagnostic.line}:{diagnostic.column}: ", FAINT),
        (rule, SEVERITY_COLOURS[diagnostic.severity]),
        style.safe(story),
    )


def _summary(result: CheckResult, style: Style) -> Text:
    """``14 specs: 2 errors, 1 warning; 3 ignored``"""
    return Text(summary(result), style=GOOD if result.exit_code is ExitCode.OK else BAD)


def summary(result: CheckResult) -> str:
    """How many specs were checked and what was found, in one line."""
    counts = result.counts
    checked = sum(outcome.report is not None for outcome in result.outcomes)
    words = {"error": counts.errors, "warning": counts.warnings, "note": counts.infos}
    findings = ", ".join(plural(number, noun) for noun, number in words.items() if number)
    aside = {"ignored": counts.ignored, "in the baseline": counts.known}
    apart = "".join(f"; {number} {what}" for what, number in aside.items() if number)
    nothing = "all passed" if result.outcomes else "none in this shard"
    return f"{plural(checked, 'spec')} checked: {findings or nothing}{apart}"
