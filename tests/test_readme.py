"""Every ``$ gradprobe …`` block of the README prints what stands below it.

Numbers and bars may differ in the last digit on another processor, so they are compared by place
and not by value. ``GRADPROBE_OVERWRITE=1`` rewrites the blocks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"```console\n((?:\$ [^\n]*\n)+)(.*?)```", re.DOTALL)
OVERWRITE = bool(os.environ.get("GRADPROBE_OVERWRITE"))


def blocks() -> list[str]:
    return [match[1] for match in BLOCK.finditer(README.read_text(encoding="utf-8"))]


def output_of(commands: str, folder: Path) -> str:
    """What the block's commands print, in a folder of their own beside the project's files."""
    for name in ("model_specs", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    lines = [line.removeprefix("$ ") for line in commands.splitlines()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    for name, words in (("gradprobe", "-m gradprobe"), ("python", "")):
        tool = folder / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        tool.chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-c", " && ".join(lines)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode in (0, 1, 2), done.stdout
    return done.stdout


def without_values(text: str) -> str:
    """Digits, bars and the space that aligns them do not count."""
    text = re.sub(r"[█▏▎▍▌▋▊▉ox·]+", "", text)
    text = re.sub(r"-?\d[\d.,]*(e-?\d+)?|inf", "#", text)
    return re.sub(r"[ \t]+", " ", text).strip()


@pytest.mark.parametrize("commands", blocks(), ids=lambda c: c.split("\n")[-2][2:50])
def test_the_readme_shows_what_the_command_prints(commands: str, tmp_path: Path) -> None:
    printed = output_of(commands, tmp_path)
    text = README.read_text(encoding="utf-8")
    shown = next(match for match in BLOCK.finditer(text) if match[1] == commands)
    if OVERWRITE:
        README.write_text(text[: shown.start(2)] + printed + text[shown.end(2) :], encoding="utf-8")
        return
    assert without_values(shown[2]) == without_values(printed)
    assert max(map(len, printed.splitlines())) <= 80
