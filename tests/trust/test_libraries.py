"""A model of an installed library, named by a clone: code of the environment, not of the clone."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import Run
from helpers.libraries import installed

from gradprobe.errors import InputError, Place
from gradprobe.spec.entry import Entry
from gradprobe.spec.options import CheckOptions
from gradprobe.tasks.check import target as check_target

__all__ = ["installed"]  # a fixture


def entry(target: str, folder: Path, **others: object) -> Entry:
    return Entry(target, str(folder), Place("gradprobe.toml", 3, 1), **others)


def test_a_configuration_may_name_what_is_installed(installed: Path) -> None:
    """It is code of the environment, not of the clone, and is imported from there alone."""
    folder = Path.cwd()
    named = check_target.read("x", CheckOptions(), entry("timm:tiny", folder), False)
    assert named.spec is not None
    assert (named.spec.path, named.spec.library) == ("", "timm")
    layers = check_target.read("x", CheckOptions(), entry("acme:3", folder), False)
    assert layers.spec is None
    assert b"Linear" in layers.data


@pytest.mark.parametrize(
    "others", [{"path": "."}, {"inputs": "os:getcwd"}, {"loss": "os:system"}], ids=str
)
def test_a_clones_own_functions_beside_it_are_code(
    installed: Path, others: dict[str, object]
) -> None:
    named = entry("timm:tiny", Path.cwd(), **others)
    with pytest.raises(InputError, match="this target runs code"):
        check_target.read("x", CheckOptions(), named, False)
    check_target.read("x", CheckOptions(), named, True)


def test_a_configuration_names_no_weights_and_no_folder_outside(
    installed: Path, tmp_path: Path
) -> None:
    named = entry("timm:tiny", Path.cwd(), args={"checkpoint_path": "x"})
    with pytest.raises(InputError, match="no weights come from timm"):
        check_target.read("x", CheckOptions(), named, False)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="lies outside of the tree"):
        check_target.read("x", CheckOptions(), entry("hf:..", Path.cwd()), False)


def test_a_clones_file_of_the_librarys_name_is_not_imported(run: Run, installed: Path) -> None:
    Path("timm.py").write_text("raise SystemExit(7)")
    ended = run("probe", "timm:tiny", "--trusted-in-process")
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.slow
def test_a_check_of_a_clone_that_names_one(
    run: Run, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured without --allow-code, in a process that imports nothing of the clone."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    Path("timm.py").write_text("raise SystemExit(7)")
    Path("gradprobe.toml").write_text('deep = false\n[[targets]]\ntarget = "timm:tiny"\n')
    ended = run("check", "--no-cache")
    assert (ended.code, ended.err) == (0, "")
    assert "1 target" in ended.out or "1 spec" in ended.out
