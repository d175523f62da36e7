"""How far a measurement has come: what is told, in which words, and across processes."""

from __future__ import annotations

import pytest

from gradprobe.measure import progress
from gradprobe.measure.overfit import MOST_STEPS
from gradprobe.measure.progress import Step, listening, meter, silently, tell, writing
from gradprobe.spec.options import ALWAYS, ProbeOptions
from gradprobe.spec.sources import stack
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.worker.run import measure_target


def test_a_probe_tells_its_rows_and_a_trial_its_steps() -> None:
    steps: list[Step] = []
    with listening(steps.append):
        spec = stack.load("plain", StackOptions(depth=3, width=8))
        measure_target(spec, ProbeOptions(level="leaves", blocks=True, overfit=ALWAYS))
    assert {step.unit for step in steps} == {"row", "block", "step"}
    assert all(0 < step.rows <= step.total for step in steps)
    assert next(step.total for step in steps if step.unit == "step") == MOST_STEPS
    # Ten of each rate, sixty of the two best of either optimizer, and a look at each end.
    assert MOST_STEPS == 7 * (10 + 1) + 2 * 2 * (60 + 1)


def test_the_time_counts_from_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 100.0, 110.0, 200.0, 200.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    words = meter()
    assert words(Step(10, 100, unit="block")) == "block 10 of 100"
    assert words(Step(20, 100, unit="block")) == "block 20 of 100, 80 s left"
    assert words(Step(1, 321, unit="step")) == "step 1 of at most 321"


@pytest.mark.parametrize(
    "line", ["", "1 2", "3 2 0 row", "0 2 0 row", "1 2 0 \x1b[2J", "1 9e9 0 row"]
)
def test_what_another_process_wrote_is_held_to_a_form(line: str) -> None:
    assert Step.read(line) is None


def test_a_step_crosses_processes() -> None:
    lines: list[str] = []
    with writing(lines.append):
        tell(Step(3, 4, backward=True))
        tell(Step(4, 4, backward=True))  # too soon
        with silently():
            tell(Step(1, 4))
    assert [Step.read(line) for line in lines] == [Step(3, 4, backward=True)]
