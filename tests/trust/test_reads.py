"""Every file that is read is a regular one, of a bounded size, in the tree that is checked."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from helpers.bad_inputs import clean
from helpers.commands import Run

from gradprobe import files
from gradprobe.files import open_regular, outside, read_regular, write_atomically
from gradprobe.spec.options import CheckOptions
from gradprobe.tasks.check.discover import discover
from gradprobe.tasks.check.ignore import matches, pattern_of

# A command, and the file that it reads.
READS = [
    (("probe", "x.yaml"), "x.yaml"),
    (("check", "x.yaml"), "x.yaml"),
    (("check",), "x.yaml"),
    (("fix", "x.yaml"), "x.yaml"),
    (("check",), ".gitignore"),
    (("check",), "gradprobe.toml"),
    (("check",), "pyproject.toml"),
    (("check", "--config", "x.toml"), "x.toml"),
    (("check", "--baseline", "x.json"), "x.json"),
    (("probe", "net.yaml", "--data", "x.npy"), "x.npy"),
    (("probe", "net.yaml", "--data", "x.npz"), "x.npz"),
    (("probe", "net.yaml", "--data", "x.safetensors"), "x.safetensors"),
    (("probe", "net.yaml", "--weights", "x.pt"), "x.pt"),
    (("probe", "net.yaml", "--weights", "x.safetensors"), "x.safetensors"),
    (("probe", "net.yaml", "--weights", "x.index.json"), "x.index.json"),
    (("compare", "x.json", "net.yaml"), "x.json"),
    (("probe", "config.json"), "config.json"),
    (("probe", "model/"), "model/config.json"),
]


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize(("command", "name"), READS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_refused_by_its_name(
    run: Run, folder: Path, command: tuple[str, ...], name: str, kind: str
) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(name)
    else:
        Path(name).symlink_to("/dev/zero")
    ended = run(*command)
    assert ended.code == 2, ended
    assert Path(name).name in ended.out + ended.err or name == "model/config.json"
    assert "internal error" not in ended.err


@pytest.mark.usefixtures("forked_workers")
def test_a_pipe_in_place_of_a_cache_entry_is_measured_anew(run: Run, folder: Path) -> None:
    assert run("check").code == 0
    [entry] = Path(".gradprobe_cache").glob("??/*")
    entry.unlink()
    os.mkfifo(entry)
    ended = run("check")
    assert ended.code == 0
    assert "measured anew" in ended.err


@pytest.mark.parametrize(
    "command",
    [("check", "--config", "x.toml"), ("check", "--baseline", "x"), ("compare", "x.json", "plain")],
)
def test_a_file_of_gigabytes_is_not_read_whole(
    run: Run, folder: Path, command: tuple[str, ...]
) -> None:
    for name in ("x.toml", "x", "x.json"):
        Path(name).write_text('{"schema_version": 1')
        os.truncate(name, 8 << 30)  # of which the disk holds one block
    clean(run(*command))


def test_a_file_may_be_as_large_as_allowed_and_no_larger(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * (1 << 20))
    assert len(read_regular(path, 1 << 20)) == 1 << 20
    os.truncate(path, (1 << 20) + 1)
    with pytest.raises(OSError, match="larger than 1 MiB"):
        read_regular(path, 1 << 20)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_a_directory_that_cannot_be_listed_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    listed = os.scandir

    def scandir(path: str = ".") -> object:
        if str(path).endswith("er"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    discovery = discover(["."], lambda place: CheckOptions())
    assert [(missing.path, missing.why) for missing in discovery.missing] == [
        ("deep/er", "cannot be listed: Permission denied")
    ]
    assert discovery.files == ("net.yaml",)


@pytest.mark.parametrize("to", ["nowhere.toml", "gradprobe.toml", "..", "/dev/null"])
def test_a_configuration_that_cannot_be_read_is_never_ignored(
    run: Run, folder: Path, to: str
) -> None:
    Path("gradprobe.toml").symlink_to(to)
    clean(run("check"))


# ---- links out of the tree


@pytest.mark.parametrize("secret", ["layers: s3cret\n", "s3cret: 1\nlayers: 1\n", "- s3cret: ["])
def test_a_link_out_of_the_tree_is_named_and_not_quoted(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    (folder / "secret").write_text(secret)
    (folder / "tree" / "sub").mkdir(parents=True)
    monkeypatch.chdir(folder / "tree")
    Path("sub/x.yml").symlink_to(folder / "secret")
    for command in (("check",), ("check", "sub"), ("check", "sub/x.yml"), ("check", "**/*.yml")):
        ended = run(*command, "--output-format", "full")
        assert ended.code == 2
        assert "sub/x.yml" in ended.out
        assert "s3cret" not in ended.out + ended.err
    Path("sub/x.yml").unlink()
    Path("net.yaml").write_text((folder / "net.yaml").read_text())
    Path("gradprobe.toml").symlink_to(folder / "secret")
    ended = run("check")
    clean(ended)
    assert "s3cret" not in ended.err


def test_a_link_inside_the_tree_is_followed(folder: Path) -> None:
    (folder / "a" / ".git").mkdir(parents=True)
    (folder / "a" / "b").mkdir()
    for name, to in {"in": "../x", "out": "../../net.yaml"}.items():
        (folder / "a" / "b" / name).symlink_to(to)
    assert not outside(folder / "a" / "b" / "in")
    assert outside(folder / "a" / "b" / "out")
    assert not outside(folder / "a" / "b" / "out", folder)


# ---- patterns


PIECES = [
    "[--a]",
    "[a--]",
    "[!-b]",
    "*",
    "**",
    "?",
    "a",
    "b",
    "/",
    "/",
    "[ab]",
    "[!a]",
    "\\*",
    "!",
    "ab",
    "[^b-c]",
    "#",
]


def test_patterns_mean_what_they_mean_to_git(folder: Path) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    chosen = random.Random(0)
    names = ["a", "b", "ab", "ba", "c", "*"]
    paths = sorted({"/".join(chosen.choices(names, k=chosen.randint(1, 4))) for _ in range(80)})
    asked = "\0".join(paths).encode()
    for _ in range(150):
        line = "".join(chosen.choices(PIECES, k=chosen.randint(1, 6)))
        Path(".git/info/exclude").write_text(line + "\n")
        told = subprocess.run(
            ["git", "check-ignore", "--no-index", "--stdin", "-z"], input=asked, stdout=-1
        ).stdout.decode()
        ours = [path for path in paths if matches([line], ".", path)]
        assert ours == [path for path in told.split("\0") if path], line


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 14 + "*b", "a" * 250),
        ("[ab]*" * 14 + "c", "ab" * 120),
        ("**/a/" * 14 + "b", "a/" * 1500 + "a"),
        ("**/*a*a*a/" * 9 + "b", ("a" * 40 + "/") * 60 + "a"),
        ("?*" * 30 + "b", "a" * 250),
    ],
)
def test_patterns_take_time_in_proportion(pattern: str, path: str) -> None:
    start = time.process_time()
    compiled = pattern_of(pattern)
    assert compiled is not None
    assert not compiled.means(path, False)
    assert time.process_time() - start < 1


def test_a_line_that_is_no_pattern_leaves_the_others_in_force(folder: Path) -> None:
    Path(".gitignore").write_text("!\n[z-a]x\n[\n///\nnet.yaml\n")
    assert discover(["."], lambda place: CheckOptions()).files == ()


# ---- writing


def test_a_file_of_two_names_goes_on_having_them(folder: Path) -> None:
    os.link("net.yaml", "other")
    write_atomically("net.yaml", "new\n")
    assert Path("other").read_text() == "new\n"
    assert Path("net.yaml").samefile("other")


def test_a_name_that_is_empty_is_told(folder: Path, run: Run) -> None:
    ended = run("probe", "net.yaml", "--format", "json", "-o", "")
    assert (ended.code, ended.out) == (2, "")
    assert "-o: the name of the file is empty" in ended.err


def test_an_interrupt_leaves_no_temporary_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(name: str, path: Path) -> None:
        assert os.path.exists(name)
        files.remove_unfinished()
        assert not os.path.exists(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically("out.txt", "new\n")
    assert os.listdir() == ["net.yaml"]


@pytest.mark.slow
def test_a_spec_is_not_skipped_for_a_control_character_in_it(run: Run, folder: Path) -> None:
    spec = Path("net.yaml").read_bytes()
    for number, more in enumerate((b"\0", b"# \x1b[31m\n", b"loss: \x07\n")):
        Path(f"odd{number}.yaml").write_bytes(spec + more)
    ended = run("check", "--no-cache")
    assert ended.code == 2
    assert [f"odd{number}.yaml:" in ended.out for number in range(3)] == [True] * 3
