"""``gradprobe check --shard K/N`` and ``gradprobe merge``: the parts are the whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.check_specs import GOOD, IGNORING, INVALID, VANISHING, WEAK, write
from helpers.commands import Result, Run

from gradprobe.render.check.formats import FORMATS
from gradprobe.tasks.check.config import resolver
from gradprobe.tasks.check.discover import discover
from gradprobe.tasks.check.shard import split

pytestmark = pytest.mark.usefixtures("forked_workers")
CONFIG = """\
exclude = ["attic/"]
seeds = [1]
[per-file-ignores]
"c.yaml" = [{rule = "GP101", reason = "known"}]
[[targets]]
target = "mymodel:Net"
"""


@pytest.fixture
def check(run: Run, folder: Path, shared_cache: Path) -> Run:
    def call(*arguments: str) -> Result:
        quick = ("--no-overfit", "--no-deep", "--cache-dir", str(shared_cache))
        return run("check", *quick, *arguments)

    return call


def parts(check: Run, count: int, *arguments: str) -> list[str]:
    """The files of all parts."""
    files = [f"part{number}.json" for number in range(1, count + 1)]
    for number, file in enumerate(files, 1):
        check(*arguments, "--shard", f"{number}/{count}", "-o", f"json={file}")
    return files


def written(name: str) -> list[str]:
    """Options by which every format is written to a file."""
    return [word for form in FORMATS for word in ("-o", f"{form}={name}.{form}")]


def test_four_parts_are_the_whole_in_every_format(run: Run, check: Run, folder: Path) -> None:
    """With known and ignored findings, a spec that is wrong, code that may not run, lost files."""
    (folder / "gradprobe.toml").write_text(CONFIG)
    (folder / "attic").mkdir()
    write(folder / "attic", old=VANISHING)
    write(folder, a=VANISHING, b=WEAK, gone=VANISHING)
    check("--write-baseline", "a-baseline.json")
    (folder / "gone.yaml").unlink()
    write(folder, b=VANISHING, c=VANISHING, d=GOOD, e=INVALID, f=IGNORING, g=WEAK)
    arguments = (".", "nowhere.yaml", "--baseline", "a-baseline.json")
    files = parts(check, 4, *arguments)
    whole = check(*arguments, *written("whole"))
    merged = run("merge", *reversed(files), *written("merged"))
    assert merged.code == whole.code == 2
    for form in FORMATS:
        assert (folder / f"merged.{form}").read_bytes() == (folder / f"whole.{form}").read_bytes()
    assert all(len(json.loads((folder / file).read_text())["targets"]) >= 1 for file in files)


def test_a_baseline_of_all_parts_is_that_of_the_whole(run: Run, check: Run, folder: Path) -> None:
    write(folder, a=VANISHING, b=WEAK, c=GOOD)
    files = parts(check, 2)
    ended = check("--write-baseline", "whole.json")
    (folder / "a.yaml").unlink()  # where parts are joined, the files need not be
    merged = run("merge", *files, "--write-baseline", "merged.json")
    assert (merged.code, merged.out) == (ended.code, ended.out)
    assert (folder / "merged.json").read_text() == (folder / "whole.json").read_text()
    write(folder, a=VANISHING)
    held = run("merge", *parts(check, 2, "--baseline", "whole.json"), "--write-baseline", "b.json")
    assert (held.code, (folder / "b.json").exists()) == (2, False)
    assert "held to another baseline\nhint: check without --baseline" in held.err


def test_the_parts_of_one_check_have_to_be_all_there(run: Run, check: Run, folder: Path) -> None:
    write(folder, a=GOOD, b=GOOD)
    check("-o", "json=whole.json")
    files = parts(check, 3)
    (folder / "twin.json").write_text((folder / files[1]).read_text())
    older = (folder / files[0]).read_text().replace('"gradprobe": "', '"gradprobe": "0.')
    (folder / "older.json").write_text(older)
    (folder / "odd.json").write_text(re.sub('"result": "', r"\g<0>[", older.replace('"0.', '"')))
    write(folder, c=GOOD)
    check("--shard", "3/3", "-o", "json=other.json")
    for named, why in {
        (files[0], files[2]): "part 2 of 3 is missing",
        (files[1],): "parts 1, 3 of 3 are missing",
        (*files, "twin.json"): "part 2 of 3 is there twice: part2.json, twin.json",
        (*files[:2], "other.json"): "part1.json and other.json are parts of different checks",
        ("whole.json",): "whole.json is no part of a check: --shard was left out",
        ("older.json",): "older.json was written by gradprobe 0.",
        ("odd.json",): "odd.json is no part of a check: ",
        ("a.yaml",): "a.yaml is not a check's JSON",
        ("none.json",): "cannot read none.json",
    }.items():
        ended = run("merge", *named)
        assert (ended.code, ended.out) == (2, "")
        assert f"error: {why}" in ended.err
    assert run("merge", *files).code == 0


def test_one_part_is_a_whole_and_an_empty_one_passes(run: Run, check: Run, folder: Path) -> None:
    write(folder, a=VANISHING)
    assert run("merge", *parts(check, 1)).code == 1
    assert run("merge", *parts(check, 3), "--exit-zero").code == 0


def test_a_shard_is_k_of_n(check: Run, folder: Path) -> None:
    write(folder, a=GOOD)
    for wrong in ("0/3", "4/3"):
        ended = check("--shard", wrong)
        assert ended.code == 2
        assert f"--shard {wrong}: K is from 1 to 3" in ended.err
    for wrong in ("1", "a/b", "1/0", "-1/2", "1/2/3"):
        ended = check(f"--shard={wrong}")
        assert ended.code == 2
        assert f"--shard {wrong}: not K/N with K from 1 to N\nhint: --shard 2/4" in ended.err


def test_the_parts_take_about_as_long(folder: Path) -> None:
    """Ten small networks, one dear one, and code: by count the first half would have it all."""
    small = {f"s{number}": GOOD for number in range(10)}
    write(folder, a=GOOD.replace("8", "4096"), **small, bad=INVALID)
    (folder / "gradprobe.toml").write_text('targets = [{target = "mymodel:Net"}]')
    options_of = resolver(None, False, {})
    found = discover(["."], options_of)
    each = [split(found, options_of, number, 3) for number in (1, 2, 3)]
    files = [files for files, _ in each]
    assert files[:2] == [("mymodel:Net",), ("a.yaml",)]
    assert sorted(name for names in files for name in names) == sorted(found.files)
    assert len({part.targets for _, part in each}) == 1
