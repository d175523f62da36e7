"""What stands before and behind the rows of a network, as values: no torch."""

from __future__ import annotations

from typing import NamedTuple


class LossProfile(NamedTuple):
    """One loss that the output goes into, as the autograd graph has it.

    ``kind`` is the node's name, such as ``NllLoss``; ``after`` that of what stands right before it,
    a log-softmax and changes of shape aside, ``Dropout`` for all forms of it, ``Cosine`` for a
    product of unit vectors. ``times_guess`` is the loss ÷ that of a constant guess: ln(classes),
    ln 2, or the variance of the targets. The share ``outside`` is that of the targets which no
    output behind ``after`` can be.
    """

    kind: str
    after: str = ""
    normalised: bool = False  # whether a log-softmax is between the two
    times_guess: float | None = None
    broadcast: bool = False  # each output is compared with the target of every sample
    target_rms: float | None = None
    target_spread: float | None = None  # their standard deviation
    outside: float = 0.0
    raw: bool = False  # a loss on log-probabilities gets what adds up to no probability
    least: float = 0.0  # the loss cannot fall below, as its logits lie between -1 and 1


class StateProfile(NamedTuple):
    """How the state of a loop grows, that is, what one weight multiplies step by step."""

    weight: str  # its name
    growth: float  # the largest RMS ÷ the first that is not 0
    steps: int


class FirstNan(NamedTuple):
    """The operation that makes the first NaN or infinity, by torch's name: ``div``, ``Sqrt``."""

    operation: str
    place: str = ""  # the user's file and line, if it is on one
    backward: bool = False  # its gradient is what is not finite


class Surroundings(NamedTuple):
    """What the first weights get, what the last ones' output goes through, and who owns them."""

    inputs_zero: bool = False  # every floating input is 0 everywhere
    inputs_same: bool = False  # one sample is the whole batch
    input_rms: float | None = None  # of data that the first weights read, unless they normalise it
    input_spread: float | None = None  # its features' largest RMS ÷ their smallest
    output_norm: float | None = None  # of the loss's gradient with respect to the main output
    silent: float | None = None  # share of samples that lose their gradient behind the last weights
    losses: tuple[LossProfile, ...] = ()
    flat: float = 0.0  # largest share of a sigmoid's or tanh's outputs with a slope near 0
    flat_kind: str = ""
    entropy: float | None = None  # the least of an attention's, ÷ that of equal weights
    softmax_of_one: bool = False  # behind the last weights, over a single number
    least_normalised: int | None = None  # elements of which a normalisation takes the mean
    least_batched: int | None = None  # values a channel of which a BatchNorm takes the mean
    steps: tuple[str, ...] = ()  # functions with a slope of zero: round, sign, floor
    # The function that passes the least on, as it is at an end, and the share that it holds back
    ended: tuple[str, float] | None = None
    below_zero: float = 0.0  # of what a clamp in front of a logarithm gets, the share below 0
    softmax_between: int = 0  # softmaxes whose output goes straight into a linear layer
    masked: bool = False  # a softmax over -inf alone
    dropped: tuple[float, int] | None = None  # a dropout's units that a sample keeps, of how many
    idle_norms: tuple[str, ...] = ()  # in eval mode, with the statistics that they were made with
    unowned: tuple[str, ...] = ()  # what requires a gradient and is no parameter of the model
    state: StateProfile | None = None  # of the loop whose state grows most
    first_nan: FirstNan | None = None  # where a number is not finite
    straight: int = 0  # linear layers with nothing between them that is not, where that is all
    shared: tuple[tuple[str, int], ...] = ()  # lists that hold one layer several times; how often
    kink: str = ""  # the activation behind a second derivative that is 0 everywhere
    loose: tuple[str, ...] = ()  # modules that may be steps of a loop without a gradient between
    tied: bool = False  # an embedding's weight is that of a linear layer
    warnings: tuple[str, ...] = ()  # of torch, about the model's and the loss's lines


class Further(NamedTuple):
    """What a second look tells beside the signals."""

    mixing: float | None = None  # of a sample's gradient, the share at other samples
    idle: tuple[int, ...] = ()  # columns of the output of which no weight gets a gradient
    columns: int = 0  # that were looked at
    alike: float | None = None  # at equal outputs, the share of the samples' gradients in common
    curvature: float | None = None  # of the loss along its gradient; at most its largest eigenvalue
    rate: float | None = None  # the learning rate that is to be held against it
    state: StateProfile | None = None  # with the weights of loops half as large again
    # The module whose calls each read what the call before gave, without its gradient; their number
    detached: tuple[str, int] | None = None
    # What draws without a gradient, the weight that reads it, and whether the draw is put out
    drawn: tuple[str, str, bool] | None = None
    # The recurrent layer whose calls are steps, each from the same state; their number.
    restarted: tuple[str, int] | None = None
    # Without an activation, the loss of the best linear fit ÷ that of the best constant
    linear: float | None = None
    constant_derivative: bool = False  # the loss adds up a derivative that has no gradient
    # Of the loss, ‖gradient of what is added‖ ÷ ‖that of the comparison with a target‖
    added: float | None = None


UNKNOWN = Surroundings()
NOTHING = Further()
