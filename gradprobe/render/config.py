"""Check options → what is in force, and where each value came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rich.text import Text

from gradprobe.render.canvas import ENDLESS, FAINT, Style, grid, paint


def render_config(
    values: Iterable[tuple[str, object]], origins: Mapping[str, str], style: Style
) -> str:
    """A line a key, as a file would write it, with its origin: a line of a file, or default."""
    table = grid([("key", "left"), ("value", "left"), ("from", "left")])
    for key, value in values:
        origin = origins.get(key.split(".")[0].replace("-", "_"), "default")
        shown = json.dumps(value, ensure_ascii=False)
        table.add_row(Text(style.safe(key)), Text(style.safe(shown)), Text(origin, style=FAINT))
    return paint([table], replace(style, width=ENDLESS))
