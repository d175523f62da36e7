"""Commands as one would type them, for the end of each ``--help``; a test runs them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "check": (
        "gradprobe check",
        "gradprobe check nets -o sarif=gradprobe.sarif",
        "gradprobe check src/model.py:Net --allow-code",
    ),
    "probe": (
        "gradprobe probe src/model.py:Net",
        "gradprobe probe net.yaml --deep",
        "gradprobe probe residual --depth 50 --norm layer",
    ),
    "compare": (
        "gradprobe compare plain residual --depth 50",
        "gradprobe compare before.json net.yaml --format markdown",
    ),
    "diff": (
        "gradprobe diff before.json net.yaml",
        "gradprobe diff --rev main..HEAD src/model.py:Net",
        "gradprobe diff --rev main net.yaml --format markdown",
    ),
    "block": ("gradprobe block residual", "gradprobe block src/model.py:Net --row blocks.1"),
    "paths": ("gradprobe paths residual --depth 20", "gradprobe paths net.yaml --max-paths 3"),
    "sweep": (
        "gradprobe sweep plain residual",
        "gradprobe sweep plain --depth 10,30 --gain 0.9,1,1.1",
        "gradprobe sweep src/model.py:Net --arg layers=2,4,8",
    ),
    "fix": ("gradprobe fix net.yaml", "gradprobe fix net.yaml --write"),
    "run": (
        "gradprobe run train.py --epochs 3",
        "gradprobe run --steps 1,10,100 train.py",
        "gradprobe run -m package.train",
    ),
    "merge": (
        "gradprobe merge part1.json part2.json",
        "gradprobe merge part1.json part2.json -o sarif=gradprobe.sarif",
    ),
    "schema": ("gradprobe schema > gradprobe.spec.schema.json", "gradprobe schema report"),
    "rules": ("gradprobe rules", "gradprobe rules GP101"),
}


def epilog(command: str) -> str:
    """The examples of a command, as its help ends."""
    return "".join(f"{line}\n" for line in ["Examples:", *(f"  {e}" for e in EXAMPLES[command])])
