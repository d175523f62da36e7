"""Whose code a stack frame runs, so that an error shows the user's own line and nobody else's."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

from gradprobe.errors import Place

_OWN = Path(__file__).parents[1]  # all of the package
_STDLIB = Path(sysconfig.get_paths()["stdlib"])
_INSTALLED = ("site-packages", "dist-packages")
_LIBRARIES = ("torch", "gradprobe")  # among what is installed: never where the user's error is
_DUMPED = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class Frame(NamedTuple):
    """One frame of a stack; ``column`` counts from 1 and is ``None`` where it is not known."""

    file: str
    line: int
    function: str
    column: int | None = None

    @property
    def excerpt(self) -> str:
        """The line itself; empty where it cannot be read."""
        linecache.checkcache(self.file)
        return linecache.getline(self.file, self.line).rstrip("\n")

    @property
    def place(self) -> Place:
        """File, relative to the working directory where it is below it, line and column."""
        shown = os.path.relpath(self.file) if _inside(self.file, Path.cwd()) else self.file
        text = self.excerpt
        indent = len(text) - len(text.lstrip()) + 1
        return Place(shown, self.line, self.column or indent)


def users_frame(frames: Iterable[Frame]) -> Frame | None:
    """The innermost frame (``frames`` end with it) of the user's own files.

    Where there is none, that of an installed package other than torch; never one of gradprobe's.
    """
    ranked = [(rank_of(frame.file), index, frame) for index, frame in enumerate(frames)]
    rank, _, frame = max(ranked, default=(0, 0, None), key=lambda entry: entry[:2])
    return frame if rank > 0 else None


def frames_of(error: BaseException) -> list[Frame]:
    """The frames that ``error`` came through, the innermost last; for a syntax error its place."""
    walked = traceback.walk_tb(error.__traceback__)
    summaries = traceback.extract_tb(error.__traceback__)
    frames = [
        Frame(frame.f_code.co_filename, line, frame.f_code.co_qualname, _column(summary))
        for (frame, line), summary in zip(walked, summaries, strict=True)
    ]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        frames.append(Frame(error.filename, error.lineno, "<module>", error.offset or 1))
    return frames


def dumped_frames(dump: str) -> list[Frame]:
    """The frames that ``faulthandler`` wrote, the innermost last."""
    return [Frame(m[1], int(m[2]), m[3]) for m in _DUMPED.finditer(dump)][::-1]


def _column(summary: traceback.FrameSummary) -> int | None:
    """Where the expression that raised begins; Python counts bytes, an editor characters."""
    if summary.colno is None or summary.lineno is None:
        return None
    line = linecache.getline(summary.filename, summary.lineno).encode()
    return len(line[: summary.colno].decode("utf-8", "ignore")) + 1


def rank_of(file: str) -> int:
    """2 for the user's own file, 1 for an installed package's, 0 for what is neither."""
    if file.startswith("<") or _inside(file, _OWN):
        return 0
    parts = PurePath(file).parts
    for folder in _INSTALLED:
        if folder in parts[:-1]:
            return 0 if parts[parts.index(folder) + 1] in _LIBRARIES else 1
    return 0 if _inside(file, _STDLIB) else 2


def _inside(file: str, folder: Path) -> bool:
    return Path(os.path.abspath(file)).is_relative_to(folder)
