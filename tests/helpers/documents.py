"""The files that docs/ci.md says to copy, and the tables of CONTRIBUTING.md."""

from __future__ import annotations

import re

from helpers.places import ROOT

FILE = re.compile(r"```\w+ title=(\S+)\n(.*?)```", re.DOTALL)
FILES = dict(FILE.findall((ROOT / "docs" / "ci.md").read_text(encoding="utf-8")))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def rows_of(head: str) -> list[list[str]]:
    """The rows of CONTRIBUTING.md's table with this head, cell by cell."""
    table = CONTRIBUTING.partition(f"\n{head}\n")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[1:]]


# What may be added: the files to touch, and the test that does it.
ADDITIONS = {
    what: (re.findall(r"[\w/]+\.py", files), shown.strip("`"))
    for what, files, shown in rows_of("| to add | files | done in `tests/test_additions.py` by |")
}
