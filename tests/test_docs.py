"""Every ``console`` block of the README and of docs/ prints what stands below its commands.

A document's blocks run one after the other in one folder; a block with ``title=FILE`` is that file.
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
import yaml
from helpers.documents import CI, FILES
from helpers.places import ROOT

from gradprobe.verdict.report import Verdict

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = re.compile(r"^\$ .*(?:\n> .*)*$", re.MULTILINE)
BLOCK = re.compile(r"```(console|\w+ title=\S+)\n(.*?)```", re.DOTALL)
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
OVERWRITE = bool(os.environ.get("GRADPROBE_OVERWRITE"))
CI_NAMES = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "COLUMNS")


def prepared(folder: Path) -> dict[str, str]:
    """A folder for a document's commands, and the environment in which they run."""
    for name in ("model_specs", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    tools = folder / ".tools"
    tools.mkdir()
    for name, words in (("gradprobe", "-m gradprobe"), ("python", "")):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        tool.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k not in CI_NAMES}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{tools}:{environment['PATH']}"
    return environment


def write(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body, encoding="utf-8")


def ran(commands: str, folder: Path, environment: dict[str, str]) -> str:
    """What one command of a block, ``$`` and ``>`` before its lines, prints."""
    command = "\n".join(line[2:] for line in commands.splitlines())
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-c", command],
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
    text = re.sub(r"[█▏▎▍▌▋▊▉▁▂▃▄▅▆▇ox·]+", "", text)
    text = re.sub(r"-?\d[\d.,]*(e-?\d+)?|inf", "#", text)
    return re.sub(r"[ \t]+", " ", text).strip()


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_shows_what_its_commands_print(document: Path, tmp_path: Path) -> None:
    text = document.read_text(encoding="utf-8")
    environment = prepared(tmp_path)

    def done(block: re.Match[str]) -> str:
        """A file is written, the commands are run; what they print stands below them."""
        if block[1] != "console":
            write(tmp_path, block[1].partition("=")[2], block[2])
            return block[0]
        parts = []
        for command in COMMANDS.findall(block[2]):
            parts.append(f"{command}\n{ran(command, tmp_path, environment)}")
        return "```console\n" + "".join(parts) + "```"

    now = BLOCK.sub(done, text)
    if OVERWRITE:
        document.write_text(now, encoding="utf-8")
        return
    assert without_values(now) == without_values(text)
    # A diff shows the lines of a file, as wide as they are.
    told = [block.partition("\n--- ")[0] for block in CONSOLE.findall(now)]
    shown = [line for block in told for line in block.splitlines()]
    assert [line for line in shown if len(line) > 80 and line[0] not in "$>"] == []


def test_the_glossary_has_every_verdict_and_names_what_the_code_has() -> None:
    rows = [line.split("|") for line in (ROOT / "docs" / "glossary.md").read_text().splitlines()]
    words = {cells[1].strip(): cells for cells in rows if len(cells) > 3}
    assert [f"`{verdict}`" in words["verdict"][2] for verdict in Verdict] == [True] * len(Verdict)
    code = "\n".join(path.read_text() for path in (ROOT / "gradprobe").rglob("*.py"))
    names = [name for cells in words.values() for name in re.findall(r"`([\w.]+)`", cells[3])]
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", code)] == []


# ---- what docs/ci.md says to copy


def scripts() -> list[str]:
    """The commands of gradprobe in the workflow and in the GitLab job."""
    github = yaml.safe_load(FILES[".github/workflows/gradprobe.yml"])
    gitlab = yaml.safe_load(FILES[".gitlab-ci.yml"])
    lines = [step.get("run", "") for step in github["jobs"]["gradprobe"]["steps"]]
    lines += gitlab["gradprobe"]["script"]
    return [line for line in lines if line.startswith("gradprobe ")]


@pytest.mark.slow
def test_what_a_ci_job_runs_works_and_leaves_what_it_uploads(tmp_path: Path) -> None:
    environment = prepared(tmp_path)
    for name, body in FILES.items():
        write(tmp_path, name, body)
    assert len(scripts()) == 2
    for script in scripts():
        ran(f"$ {script}", tmp_path, environment)
        for output in re.findall(r"=(\S+)", script):
            assert (tmp_path / output).stat().st_size > 0
            assert CI.count(output) >= 2  # the job uploads what it writes
