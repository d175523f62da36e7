"""The configuration file: every key, and every way to get one wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import Run

from gradprobe.errors import InputError
from gradprobe.spec.entry import PerFileIgnore
from gradprobe.spec.network import TensorSpec
from gradprobe.spec.options import CheckOptions
from gradprobe.tasks.check.config import KEYS, read, resolver

FULL = """
[tool.gradprobe]
select = ["GP1", "dead"]
ignore = ["GP103"]
exclude = ["legacy/"]
include = ["nets/"]
fail-on = "warning"
regression = 2
seeds = 3
deep = false
overfit = "auto"
overfit-time = 2.5
batch-size = 16
max-parameters = 1_000
max-memory = "4GiB"
timeout = 1.5

[tool.gradprobe.thresholds]
vanishing = 1e-5

[tool.gradprobe.per-file-ignores]
"a/*.yaml" = ["GP101", {rule = "weak", reason = "warm-up"}]

[[tool.gradprobe.targets]]
target = "net:Net"
path = "src"
args = {layers = 3}
inputs = {shape = [2, 4], dtype = "int64", high = 9}
"""


def config(tmp_path: Path, text: str, name: str = "pyproject.toml") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    options = read(config(tmp_path, FULL))
    assert options.select == ("GP1", "dead")
    assert options.ignore == ("GP103",)
    assert (options.exclude, options.include) == (("legacy/",), ("nets/",))
    assert (options.fail_on, options.regression, options.seeds) == ("warning", 2.0, (0, 1, 2))
    assert options.deep is False
    assert (options.overfit, options.overfit_time) == ("auto", 2.5)
    assert (options.batch_size, options.max_parameters) == (16, 1000)
    assert (options.max_memory, options.timeout) == (4 * 2**30, 1.5)
    assert options.thresholds["vanishing"] == 1e-5
    assert options.per_file_ignores == (
        PerFileIgnore("a/*.yaml", "GP101", "per-file-ignores in pyproject.toml"),
        PerFileIgnore("a/*.yaml", "weak", "warm-up"),
    )
    [entry] = options.targets
    assert (entry.label, entry.path, entry.place.line) == ("net:Net(layers=3)", "src", 24)
    assert entry.inputs == (TensorSpec((2, 4), "int64", 9),)
    assert set(options.origins) == {key.replace("-", "_") for key in KEYS}
    assert options.origins["timeout"] == "pyproject.toml:16"
    assert options.origins["thresholds"] == "pyproject.toml:18"
    assert options.root == str(tmp_path)


def test_an_empty_section_is_the_defaults(tmp_path: Path) -> None:
    options = read(config(tmp_path, "[tool.gradprobe]\n"))
    assert options == CheckOptions(root=str(tmp_path), exclude_root=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("selct = []", 2, 1, "unknown key 'selct'|did you mean 'select'"),
        ("fail_on = 'error'", 2, 1, "did you mean 'fail-on'"),
        ("select = ['GP1', 'GP999']", 2, 18, "no rule 'GP999'"),
        ("ignore = ['vanishin']", 2, 11, "did you mean 'vanishing'"),
        ("ignore = 'GP1'", 2, 1, "list of strings"),
        ("select = ['']", 2, 8, "no rule ''"),
        ("# seeds = 0\nseeds = 0", 3, 1, "from 1 to 1,000"),
        ("seeds = true", 2, 1, "integer"),
        ("deep = 1", 2, 1, "deep: expected true or false"),
        ("seeds = [1, -1]", 2, 1, "seeds"),
        ("seeds = []", 2, 1, "seeds"),
        ("batch-size = 0", 2, 1, "from 1 to"),
        ("batch-size = 2097152", 2, 1, "from 1 to 1,048,576"),
        ("timeout = 0", 2, 1, "greater than 0"),
        ("timeout = inf", 2, 1, "greater than 0"),
        ("regression = 0.5", 2, 1, "at least 1"),
        ("max-memory = 'lots'", 2, 1, "not a size"),
        ("max-parameters = 1.5", 2, 1, "integer"),
        ("fail-on = 'eror'", 2, 1, "did you mean 'error'"),
        ("fail-on = 3", 2, 1, "unknown severity '3'"),
        ("thresholds = 3", 2, 1, "expected a table"),
        ("thresholds = {vanish = 1e-3}", 2, 15, "did you mean 'vanishing'"),
        ("thresholds = {vanishing = 0.5}", 2, 1, "must ascend"),
        ("thresholds = {vanishing = 'x'}", 2, 15, "greater than 0"),
        ("[tool.gradprobe.thresholds]\nexplodng = 3", 3, 1, "did you mean 'exploding'"),
        ("per-file-ignores = []", 2, 1, "expected a table"),
        ("per-file-ignores = {'a.yaml' = 'GP1'}", 2, 21, "list of rules"),
        ("per-file-ignores = {'a.yaml' = ['GP8']}", 2, 33, "no rule 'GP8'"),
        ("per-file-ignores = {'a' = [{rule = 'GP1'}]}", 2, 21, "a rule and a reason"),
        ("per-file-ignores = {'a' = [{rule = 'GP1', reason = ' '}]}", 2, 21, "reason is empty"),
        ("per-file-ignores = {'a' = [{rule = 'GP1', why = 'x'}]}", 2, 21, "unknown key 'why'"),
        ("per-file-ignores = {'a' = [3]}", 2, 21, "a rule is a string"),
        ("select = [", 2, 1, "not valid TOML"),
        ("select = []\nselect = []", 3, 11, "not valid TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, text: str, line: int, column: int, words: str
) -> None:
    path = config(tmp_path, f"[tool.gradprobe]\n{text}\n")
    with pytest.raises(InputError) as caught:
        read(path)
    place = caught.value.place
    assert place
    assert (place.file, place.line) == (str(path), line)
    if "TOML" not in words:
        assert place.column == column
    told = str(caught.value)
    for word in words.split("|"):
        assert word in told
    assert text.splitlines()[line - 2] in told or "TOML" in words


def test_on_the_command_line_it_is_exit_2_with_a_caret(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config(tmp_path, "fail-on = 'error'\nselct = ['GP1']\n", "gradprobe.toml")
    (tmp_path / "a.yaml").write_text("input: {shape: [4]}\nlayers: [Linear: {out_features: 4}]\n")
    ended = run("check")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"{tmp_path}/gradprobe.toml:2:1: error: unknown key 'selct'\n"
        "    2 | selct = ['GP1']\n        ^\nhint: did you mean 'select'?\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff[tool.gradprobe]\nfail-on = 'info'\n",
        "[tool]\ngradprobe = {fail-on = 'info'}\n",
        "[tool]\ngradprobe.fail-on = 'info'\n",
        "tool.gradprobe.fail-on = 'info'\n",
        "[tool.'gradprobe']\nfail-on = 'info'\n",
        "[ tool . gradprobe ]\r\nfail-on = 'info'\r\n",
    ],
)
def test_a_section_is_found_however_it_is_written(tmp_path: Path, text: str) -> None:
    config(tmp_path, text)
    assert resolver(None, False, {})(tmp_path).fail_on == "info"


@pytest.mark.parametrize("text", ["[[tool.gradprobe]]\n", "tool.gradprobe = 3\n"])
def test_a_section_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    config(tmp_path, text)
    with pytest.raises(InputError, match="expected a table"):
        resolver(None, False, {})(tmp_path)


@pytest.mark.parametrize("data", [b"\xff = 1", b"select = ['\x00']", b"a" * 10, b"\r = 3"])
def test_what_is_no_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "gradprobe.toml"
    path.write_bytes(data)
    with pytest.raises(InputError):
        read(path)


def test_a_pyproject_that_does_not_speak_of_us_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    config(tmp_path, "fail-on = 'info'\n", "gradprobe.toml")
    config(tmp_path / "inner", "[tool.gradprobes]\n[tool.'gradprobe-x']\nbroken = \n")
    resolve = resolver(None, False, {})
    assert resolve(tmp_path / "inner").fail_on == "info"
    assert resolver(None, True, {})(tmp_path).fail_on == "error"
    assert resolver(None, False, {"fail_on": "warning"})(tmp_path).fail_on == "warning"
