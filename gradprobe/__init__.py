"""gradprobe: does the gradient get from the loss back to the first layer, before you train?

>>> import gradprobe
>>> report = gradprobe.probe(gradprobe.load("model_specs/plain_sigmoid.yaml"))
>>> report.verdict
<Verdict.VANISHING: 'vanishing'>

``import gradprobe`` imports next to nothing; ``gradprobe.probe`` imports torch when it is called.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from gradprobe._version import __version__

if TYPE_CHECKING:
    from gradprobe.assertions import assert_healthy
    from gradprobe.errors import GradprobeError, InputError, ModelError
    from gradprobe.measure.profile import GradientProfile, RowProfile
    from gradprobe.spec.network import NetworkSpec
    from gradprobe.tasks.probe import probe
    from gradprobe.tasks.targets import load
    from gradprobe.tasks.watch import watch
    from gradprobe.verdict.report import Finding, Report, Severity, Verdict

_HOMES = {
    "Finding": "verdict.report",
    "GradientProfile": "verdict.report",
    "GradprobeError": "errors",
    "InputError": "errors",
    "ModelError": "errors",
    "NetworkSpec": "spec.network",
    "Report": "verdict.report",
    "RowProfile": "verdict.report",
    "Severity": "verdict.report",
    "Verdict": "verdict.report",
    "assert_healthy": "assertions",
    "load": "tasks.targets",
    "probe": "tasks.probe",
    "watch": "tasks.watch",
}

__all__ = [
    "Finding",
    "GradientProfile",
    "GradprobeError",
    "InputError",
    "ModelError",
    "NetworkSpec",
    "Report",
    "RowProfile",
    "Severity",
    "Verdict",
    "__version__",
    "assert_healthy",
    "load",
    "probe",
    "watch",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradprobe' has no attribute '{name}'")
    value = getattr(import_module(f"gradprobe.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
