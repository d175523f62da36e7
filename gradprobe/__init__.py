"""gradprobe: does the gradient get from the loss back to the first layer, before you train?

>>> import gradprobe
>>> report = gradprobe.probe(gradprobe.load("model_specs/plain_sigmoid.yaml"))
>>> report.verdict
<Verdict.VANISHING: 'vanishing'>

``import gradprobe`` does not import torch; ``gradprobe.probe`` does.
"""

from gradprobe._version import __version__
from gradprobe.check import probe
from gradprobe.errors import GradprobeError, InputError, ModelError
from gradprobe.report import Finding, GradientProfile, Report, RowProfile, Severity, Verdict
from gradprobe.sources.yaml import load
from gradprobe.spec import NetworkSpec

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
    "load",
    "probe",
]
