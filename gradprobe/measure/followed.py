"""One pass in which draws and derivatives without a gradient are followed to the loss."""

from __future__ import annotations

from gradprobe.measure.again import output_of
from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.draws import Draws, noting_samples
from gradprobe.measure.passes import scalar
from gradprobe.measure.penalties import Penalties
from gradprobe.measure.surroundings import Further
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.rows import parameters_of
from gradprobe.model.streamed import Streamed
from gradprobe.model.subject import Subject


def with_followed(known: Further, subject: Subject) -> Further:
    """``known`` with what becomes of draws and derivatives, where the loss is the user's."""
    if not subject.own_loss or subject.ranks is not None or isinstance(subject.model, Streamed):
        return known
    with (
        undisturbed(subject.model),
        keeping_graph(),
        Draws() as draws,
        Penalties() as penalties,
        noting_samples(draws),
    ):
        output = output_of(subject)
        loss = scalar(given := subject.loss(output))
    names = {id(p): name for name, p in parameters_of(subject.model)}
    return known._replace(
        drawn=draws.found(output, loss, names), constant_derivative=penalties.found(given)
    )
