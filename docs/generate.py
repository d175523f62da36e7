"""Writes docs/rules/, a page a rule from its docstring, and docs/compare.svg from a real run.

``python docs/generate.py`` writes them; the tests hold the files to what it would write.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gradprobe.render.picture import render_picture
from gradprobe.verdict.rules.rule import Rule
from gradprobe.verdict.rules.table import RULES

DOCS = Path(__file__).resolve().parent
COMMAND = ("compare", "plain", "residual", "--depth", "50")
WIDTH = 80


def pages() -> dict[str, str]:
    """Each page of docs/rules/ by its name."""
    head = "# The rules\n\n| code | name | severity | |\n|---|---|---|---|\n"
    lines = [
        f"| [{rule.code}]({rule.code}.md) | {rule.name} | {rule.severity} "
        f"| {_plain(rule.explanation.splitlines()[0])} |\n"
        for rule in RULES
    ]
    return {"index.md": head + "".join(lines)} | {f"{rule.code}.md": page(rule) for rule in RULES}


def page(rule: Rule) -> str:
    """One rule: its severity, its docstring, and how it is left out."""
    ignore = f'{{rule: {rule.code}, reason: "why it is meant"}}'
    return (
        f"# {rule.code} {rule.name}\n\nSeverity: {rule.severity}. "
        f"[All rules](index.md)\n\n{_plain(rule.explanation)}\n\n"
        f"Where it is meant, a spec says so: `check: {{ignore: [{ignore}]}}`,\n"
        "or the configuration's `ignore` and `per-file-ignores`, see [ci.md](../ci.md).\n"
    )


def _plain(text: str) -> str:
    """reStructuredText's double backquotes as Markdown has them; a bar does not end a cell."""
    return text.replace("``", "`").replace("|", "\\|")


def run() -> str:
    """What the command prints on a terminal of 80 columns, with its colours."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gradprobe", *COMMAND, "--color", "always"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def picture(printed: str) -> str:
    """The terminal as an SVG."""
    return render_picture(printed, WIDTH, command=f"gradprobe {' '.join(COMMAND)}")


def main() -> None:
    (DOCS / "rules").mkdir(exist_ok=True)
    for old in (DOCS / "rules").glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (DOCS / "rules" / name).write_text(text, encoding="utf-8")
    (DOCS / "compare.svg").write_text(picture(run()), encoding="utf-8")


if __name__ == "__main__":
    main()
