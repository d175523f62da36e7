"""A clone by someone who wishes ill: it is checked, ends in 2, and has done nothing."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = "input: {shape: [8]}\nlayers:\n  - Linear: {out_features: 8}\n"
REDOS = "*a" * 14 + "*b"

# The specs that git can hold, each of which is refused.
SPECS = {
    "bomb.gradprobe.yaml": "a: &a [x, x]\nb: &b [*a, *a]\n"
    + "c: &c [*b, *b, *b, *b]\n" * 9
    + "layers: *c\n",
    "tag.gradprobe.yaml": "layers: !!python/object/apply:os.system ['touch ran']\n",
    "code.gradprobe.yaml": "model: {target: evil:make}\n",
    "mix.yaml": GOOD + "  - Flatten: {start_dim: 0}\n",
    "lstm.gradprobe.yaml": "input: {shape: [4, 8]}\n"
    "layers: [LSTM: {hidden_size: 8, num_layers: 40000}]\n",
    "wide.yaml": "input: {shape: [8]}\nlayers: [Linear: {out_features: 2000000000}]\n",
    "scalar.gradprobe.yaml": "input: {shape: [8]}\nlayers: " + "9" * 1_000_000,
    "::stop-commands::x.yaml": "layers: [",
    "\x1b[31mred.yaml": "layers: [",
}
# What is not even read: links, pipes and devices.
UNREAD = ("pipe.yaml", "device.yaml", "secret.yaml", "dangling.yaml", "loop.yaml", "sub/.gitignore")

_BLOCKED = """import socket
def refuse(*args, **kwargs):
    open({marker!r}, "w").close()
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The clone, beside a secret and a folder that it has links to."""
    folder = tmp_path / "clone"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (tmp_path / "secret").write_text("layers: s3cret\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "site").mkdir()
    marker = str(tmp_path / "connected")
    (tmp_path / "site" / "sitecustomize.py").write_text(_BLOCKED.format(marker=marker))
    for name, text in SPECS.items():
        (folder / name).write_text(text)
    for name in ("torch", "yaml", "multiprocessing", "evil", "sitecustomize", "msgspec"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (folder / "good.yaml").write_text(GOOD)
    (folder / f"{'a' * 120}.yaml").write_text(GOOD)
    (folder / "huge.yaml").write_text(GOOD)
    os.truncate(folder / "huge.yaml", 8 << 30)
    (folder / "gradprobe.toml").write_text(f'exclude = ["{REDOS}"]\n')
    (folder / ".gitignore").write_text(f"!\n[\n{REDOS}\n")
    os.mkfifo(folder / "pipe.yaml")
    os.mkfifo(folder / "sub" / ".gitignore")
    links = {"device.yaml": "/dev/zero", "secret.yaml": "../secret", "dangling.yaml": "nowhere"}
    for name, to in {**links, "loop.yaml": "loop.yaml", ".gradprobe_cache": "../elsewhere"}.items():
        (folder / name).symlink_to(to)
    return folder


@pytest.mark.slow
def test_a_clone_that_means_ill(clone: Path) -> None:
    outside = clone.parent
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(outside / "site"),
        "XDG_STATE_HOME": str(outside / "state"),
        "OMP_NUM_THREADS": "1",
        "GITHUB_ACTIONS": "",
    }
    before = sorted(path for path in outside.rglob("*") if "state" not in path.parts)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-m", "gradprobe", "check"],
        cwd=clone, env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 2, ended
    assert "internal error" not in ended.stdout + ended.stderr
    for name in (*SPECS, *UNREAD, "huge.yaml"):
        shown = name.replace("\x1b", "\\x1b").replace("::stop", "\\u003a:stop")
        assert f"\n{shown}:" in f"\n{ended.stdout}", shown
    assert "good.yaml:1:1: GP9" not in ended.stdout
    assert "no cache" in ended.stderr
    assert "s3cret" not in ended.stdout + ended.stderr
    assert "\x1b" not in ended.stdout + ended.stderr
    assert not re.search(r"(?m)^\s*::", ended.stdout + ended.stderr)
    after = sorted(path for path in outside.rglob("*") if "state" not in path.parts)
    assert [
        path for path in after if path.suffix != ".pyc" and path.name != "__pycache__"
    ] == before
    assert spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime < 10


def test_each_promise_names_tests_that_are_there() -> None:
    root = Path(__file__).parents[2]
    text = (root / "SECURITY.md").read_text()
    named = re.findall(r"`(?:tests/trust/)?(test_\w+\.py)(?:::(\w+))?`", text)
    assert len(named) > 20
    for file, function in named:
        text = (root / "tests" / "trust" / file).read_text()
        assert not function or f"\ndef {function}(" in text, function


def test_no_test_here_reaches_a_network() -> None:
    """The proof can fail: ``conftest.py`` raises what no boundary takes for an error."""
    with socket.socket() as closed, pytest.raises(BaseException, match="a connection was asked"):
        closed.connect(("127.0.0.1", 9))
