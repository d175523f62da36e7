"""What `gradprobe check` alone finds: against a baseline, and of a target that has no profile."""

from __future__ import annotations

from gradprobe.verdict.report import Severity
from gradprobe.verdict.rules.rule import Rule

RULES = (
    Rule(
        "GP501",
        "regression",
        Severity.ERROR,
        text="""
        The reach is further from 1 than the baseline says, by more than the allowed factor.

        The verdict may still be healthy: a gate that waits until the band is left says so too late.
        The factor is `regression` in the configuration, 3 by default; `--write-baseline` accepts
        the new reach.
        """,
    ),
    Rule(
        "GP502",
        "stale-baseline",
        Severity.ERROR,
        text="""
        The baseline lists a finding that is not there any more.

        It was mended, or its file is gone, and left in the baseline it would let the next one pass:
        `gradprobe check --baseline FILE --prune-baseline` takes it out.
        """,
    ),
    Rule(
        "GP901",
        "invalid",
        Severity.ERROR,
        text="""
        The target could not be read: no such file, no spec in it, or a spec with an error.

        Exit code 2. It cannot be ignored, nor stand in a baseline.
        """,
    ),
    Rule(
        "GP902",
        "failed",
        Severity.ERROR,
        text="""
        The network could not be built or run: it raised, ran out of time or memory, or was killed.

        Exit code 3. It cannot be ignored, nor stand in a baseline.
        """,
    ),
)
