"""An option of one kind of target, typed beside targets of several kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import Result

from gradprobe.cli.effects import Given
from gradprobe.errors import InputError

Say = pytest.CaptureFixture[str]


def test_a_target_that_keeps_its_own_loss_is_named(capsys: Say) -> None:
    given = Given(("loss",), "net:loss")
    given.require_effect(["net.yaml", "net:Net", "plain"], ["spec", "code", "stack"])
    said = "--loss net:loss is for Python models: net.yaml, like 1 more, is measured by its own"
    assert said in capsys.readouterr().err
    given.require_effect(["before.json", "net:Net"], ["report", "code"])
    Given(("loss",), "mse").require_effect(["net.yaml", "net:Net"], ["spec", "code"])
    assert not capsys.readouterr().err
    with pytest.raises(InputError, match=r"and net\.yaml is a spec"):
        given.require_effect(["net.yaml"], ["spec"])


@pytest.mark.usefixtures("forked_workers")
def test_code_that_may_not_run_is_told_before_an_idle_option(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text("input: {shape: [4]}\nlayers: [{Linear: {out_features: 2}}]\n")
    ended = run("check", "net.yaml", "net:Net", "--loss", "net:loss", "--no-deep", "--no-overfit")
    assert (ended.code, ended.err) == (2, "")
    assert "net:Net:1:1: GP901 invalid: this target runs code" in ended.out
