"""Zeros of the first step: which of them a step wakes up."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch

from gradprobe.measure.checkpoints import without_reentrant
from gradprobe.measure.one_pass import measure
from gradprobe.measure.passes import scalar
from gradprobe.measure.profile import GradientProfile
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.subject import Subject

_STEPS = 3
_STEP = 0.01  # of a parameter's own norm; of 1 where that is zero


def with_still_zero(profile: GradientProfile, subject: Subject) -> GradientProfile:
    """``profile`` with ``still_zero``, where there is a zero, and a weight that may explain it.

    A zero head, branch or LoRA matrix gives a gradient of zero to everything upstream of it, at the
    first step only. Whether it is only that shows after a step, which a copy of the model takes; of
    zero weights behind one another, each step wakes one.
    """
    parameters = [p for row in profile.rows if not row.level for p in row.parameters]
    hidden = _zeros(profile)
    if not hidden or not any(p.wakes_up for p in parameters):
        return profile
    try:
        with undisturbed(subject.model):
            for _ in range(_STEPS):
                subject = _stepped(subject)
                hidden &= _zeros(measure(subject))
                if not hidden:
                    break
    except Exception:
        return profile  # a model that cannot be copied: it is not known what the step would bring
    return replace(profile, still_zero=tuple(sorted(hidden)))


def _zeros(profile: GradientProfile) -> set[str]:
    rows = [row for row in profile.rows if not row.level]
    weights = [p for row in rows for p in row.parameters if p.dimensions > 1]
    cold_rows = {row.name for row in rows if row.gradient_norm == 0}
    return cold_rows | {p.name for p in weights if p.gradient_norm == 0}


def _stepped(subject: Subject) -> Subject:
    """The same with a copy of the model after one step of gradient descent."""
    with torch.inference_mode(False), torch.enable_grad(), without_reentrant():
        moved = deepcopy(subject.model)
        trained = [p for p in moved.parameters() if p.requires_grad]
        reseed_all(derive(subject.seed, "forward"))
        output = moved(*deepcopy(subject.args), **deepcopy(dict(subject.kwargs)))
        value = scalar(subject.loss(output))
        gradients = torch.autograd.grad(value, trained, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            size = float(torch.linalg.vector_norm(gradient)) if gradient is not None else 0.0
            if gradient is not None and size > 0:
                own = float(torch.linalg.vector_norm(parameter)) or 1.0
                parameter.sub_(gradient.to_dense() * (_STEP * own / size))
    paths = {module: path for path, module in subject.model.named_modules()}
    copies = dict(moved.named_modules())
    rows = tuple(row._replace(module=copies[paths[row.module]]) for row in subject.rows)
    return replace(subject, model=moved, rows=rows)
