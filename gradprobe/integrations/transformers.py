"""``Trainer(callbacks=[GradientReport(every=100)])`` of transformers."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from gradprobe.tasks.watch import Watch, watch


class GradientReport(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Reports at the first step and every so many; takes what ``gradprobe.watch`` takes."""

    def __init__(self, every: int = 100, **options: Any) -> None:
        self.every, self.options = every, options
        self.watch: Watch | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_train_end(args, state, control)  # of a training that an error ended
        self.watch = watch(every=self.every, **self.options)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.watch:
            self.watch.close()
