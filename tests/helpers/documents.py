"""The files that docs/ci.md says to copy."""

from __future__ import annotations

import re

from helpers.places import ROOT

FILE = re.compile(r"```\w+ title=(\S+)\n(.*?)```", re.DOTALL)
CI = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
FILES = dict(FILE.findall(CI))
