"""Under torchrun all processes end alike, and one speaks; ``measure/test_ranks.py`` starts some."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gradprobe.cli.app import app_for
from gradprobe.cli.output import emit
from gradprobe.errors import GradprobeError, InputError, ModelError
from gradprobe.spec.options import ProbeOptions
from gradprobe.worker import alike as sharing
from gradprobe.worker import torchrun as processes
from gradprobe.worker.alike import alike
from gradprobe.worker.exchange import Failure, encode
from gradprobe.worker.torchrun import Torchrun, rank_of_script, torchrun

VARIABLES = {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2", "RANK": "1"}


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


class Store(dict[str, str]):
    """What the processes say to each other."""

    set = dict.__setitem__


@pytest.mark.parametrize(("first", "second", "expected"), [(1, 0, 1), (0, 3, 3), (2, 2, 2)])
def test_all_end_alike_and_are_not_ended_by_torchrun(
    monkeypatch: pytest.MonkeyPatch, first: int, second: int, expected: int
) -> None:
    """torchrun terminates the others at the first exit code that is not 0."""
    store = Store()
    monkeypatch.setattr(processes, "_store", lambda: store)
    monkeypatch.setattr(processes, "_get", lambda store, key: store[key])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert Torchrun(0, 2).end(first) == first
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert Torchrun(1, 2).end(second) == expected
    finally:
        signal.signal(signal.SIGTERM, before)


def ended(monkeypatch: pytest.MonkeyPatch, *messages: str) -> str:
    """The error of all processes where each has ended with such a message, or with none."""

    class Processes(Torchrun):
        def everyone(self, key: str, value: str) -> list[str]:
            return [encode(Failure.of(ModelError(m))) if m else "" for m in messages]

    monkeypatch.setattr(sharing, "torchrun", lambda: Processes(0, len(messages)))
    with pytest.raises(GradprobeError) as error:
        alike(lambda: None, "0")
    return error.value.message


def test_the_error_of_all_is_that_of_the_rank_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(monkeypatch, "rank 0: it failed", "rank 1: it failed") == "it failed"
    assert ended(monkeypatch, "", "out of memory") == "rank 1: out of memory"
    gone = "rank 0: Connection closed by peer"
    assert ended(monkeypatch, gone, "rank 1: no such thing") == "rank 1: no such thing"
    assert ended(monkeypatch, "no result after 9 s", "raised") == "rank 1: raised"


def test_one_process_is_none_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchrun() is None
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert torchrun() is None


@pytest.mark.parametrize(("value", "number"), [(None, "0"), ("", "0"), ("1", "1")])
def test_any_launcher_numbers_the_processes_of_a_script(
    monkeypatch: pytest.MonkeyPatch, value: str | None, number: str
) -> None:
    """A pod of a cluster has a RANK too: there a script is one of several, and a probe is alone."""
    monkeypatch.delenv("RANK", raising=False)
    if value is not None:
        monkeypatch.setenv("RANK", value)
    assert (rank_of_script(), torchrun()) == (number, None)


@pytest.mark.usefixtures("rank")
def test_the_second_process_writes_no_file(tmp_path: Path) -> None:
    assert torchrun() == (1, 2)
    emit("text", str(tmp_path / "file"))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("rank")
@pytest.mark.parametrize("command", ["check", "sweep", "fix"])
def test_other_commands_take_one_process(command: str) -> None:
    with pytest.raises(InputError, match=f"{command} under torchrun"):
        app_for([command])


@pytest.mark.parametrize("option", [{"deep": True}, {"overfit": "always"}, {"stream": True}])
def test_what_needs_the_whole_network_is_refused(option: dict[str, object]) -> None:
    with pytest.raises(InputError) as error:
        ProbeOptions(sharded=True, **option)  # type: ignore[arg-type]
    assert "torchrun" in str(error.value)
