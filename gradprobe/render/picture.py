"""What a terminal shows → the same as an SVG."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text


def render_picture(text: str, width: int, command: str = "") -> str:
    """A terminal of ``width`` columns with coloured text in it, and the command above that."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    if command:
        console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(text.rstrip("\n")))
    svg = console.export_svg(title="gradprobe", theme=MONOKAI, unique_id="gradprobe")
    # The fonts that rich names are fetched from elsewhere: a terminal's own do.
    return re.sub(r"\s*@font-face \{.*?\n    \}", "", svg, flags=re.S)
