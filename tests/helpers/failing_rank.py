"""``gradprobe``, where the second of torchrun's processes fails, and the first waits for it."""

from __future__ import annotations

import os
from typing import NoReturn

from gradprobe.cli.main import main
from gradprobe.measure import take


def fail(*arguments: object) -> NoReturn:
    raise MemoryError("no more of it")


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        take.measure = fail
    main()
