"""``Trainer(callbacks=[GradientReport(every=100)])`` of Lightning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from gradprobe.tasks.watch import Watch, watch


class GradientReport(Callback):  # type: ignore[misc,unused-ignore]
    """Reports at the first step and every so many; takes what ``gradprobe.watch`` takes."""

    def __init__(self, every: int = 100, **options: Any) -> None:
        self.every, self.options = every, options
        self.watch: Watch | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.watch = watch(every=self.every, **self.options)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.watch:
            self.watch.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)
