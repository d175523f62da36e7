"""Every ``console`` block of the README and of docs/ prints what stands below its commands; all
other blocks are run by ``test_examples.py``.

A document's blocks run one after the other in one folder; a block with ``title=FILE`` is that file.
Numbers and bars may differ in the last digit on another processor, so they are compared by place
and not by value. ``GRADPROBE_OVERWRITE=1`` rewrites the blocks.
"""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.places import ROOT

from gradprobe.cli.main import main
from gradprobe.verdict.report import Verdict

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*DOCUMENTS, *sorted((ROOT / "docs" / "rules").glob("*.md"))]
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
    if re.fullmatch(r"gradprobe [^\n|<>;&$`*?(#~\\]*", command):  # nothing for a shell to do
        return ran_here(shlex.split(command)[1:], folder)
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


def ran_here(words: list[str], folder: Path) -> str:
    """What a command prints, in this process, which has torch already: into one file, as there."""
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        for stream in (1, 2):
            kept = os.dup(stream)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, stream)
            os.dup2(file.fileno(), stream)
        out = stack.enter_context(open(os.dup(1), "w", encoding="utf-8"))
        err = stack.enter_context(open(os.dup(2), "w", buffering=1, encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        with pytest.raises(SystemExit) as stopped:
            main(words)
        out.flush()
        file.seek(0)
        text = file.read().decode("utf-8")
    assert int(stopped.value.code or 0) in (0, 1, 2), text
    return text


def without_values(text: str) -> str:
    """Digits, bars and the space that aligns them do not count."""
    text = re.sub(r"[█▏▎▍▌▋▊▉▁▂▃▄▅▆▇ox·]+|◄━*", "", text)
    text = re.sub(r"-?\d[\d.,]*(e-?\d+)?|inf", "#", text)
    return re.sub(r"[ \t]+", " ", text).strip()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_shows_what_its_commands_print(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CI_NAMES:
        monkeypatch.delenv(name, raising=False)
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


def test_every_command_is_in_a_block_that_is_run() -> None:
    """But for README's two set-up commands, which .ci/run runs."""
    lines = [
        (path.name, line)
        for path in DOCUMENTS
        for line in re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL).splitlines()
        if re.match(r"    (gradprobe|pip|python) ", line)
    ]
    assert [name for name, line in lines] == ["README.md"] * 2


def test_the_front_page_is_short_and_begins_with_the_set_up() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 180
    assert [i for i, line in enumerate(lines) if line.startswith("    pip install")] == [6, 7]


LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(document: Path) -> None:
    for file, anchor in LINK.findall(document.read_text("utf-8")):
        target = document.parent / file if file else document
        assert target.exists(), file
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads]
            assert anchor[1:] in slugs


def test_the_package_index_gets_links_that_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = SimpleNamespace(MetadataHookInterface=object)  # hatchling is there while it builds
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))
    text = hook["absolute"]((ROOT / "README.md").read_text("utf-8"), "https://example.org/x")
    assert not LINK.findall(text)
    assert "(https://example.org/x/raw/main/docs/compare.svg)" in text


GENERATED = runpy.run_path(str(ROOT / "docs" / "generate.py"))


def test_every_rule_has_a_page_as_its_docstring_says() -> None:
    """``python docs/generate.py`` writes them anew."""
    folder = ROOT / "docs" / "rules"
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == GENERATED["pages"]()


@pytest.mark.slow
def test_the_picture_is_of_what_the_command_prints() -> None:
    now = GENERATED["picture"](GENERATED["run"]())
    texts = [
        re.sub(r"<style>.*?</style>|<[^>]*>", " ", svg, flags=re.DOTALL)
        for svg in (now, (ROOT / "docs" / "compare.svg").read_text("utf-8"))
    ]
    assert without_values(texts[0]).split() == without_values(texts[1]).split()


def test_the_glossary_has_every_verdict_and_names_what_the_code_has() -> None:
    rows = [line.split("|") for line in (ROOT / "docs" / "glossary.md").read_text().splitlines()]
    words = {cells[1].strip(): cells for cells in rows if len(cells) > 3}
    assert [f"`{verdict}`" in words["verdict"][2] for verdict in Verdict] == [True] * len(Verdict)
    code = "\n".join(path.read_text() for path in (ROOT / "gradprobe").rglob("*.py"))
    names = [name for cells in words.values() for name in re.findall(r"`([\w.]+)`", cells[3])]
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", code)] == []
