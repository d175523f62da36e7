"""What was measured comes back from its archive exactly, and nothing else comes back at all."""

from __future__ import annotations

import json
import math
import struct

import pytest
from helpers.handmade import parameter, profile, row
from hypothesis import given, settings
from hypothesis import strategies as st

from gradprobe.errors import Place
from gradprobe.measure.blocks.profile import Estimate, JacobianProfile
from gradprobe.measure.measurement import Measurement, NoLook, SecondLook
from gradprobe.measure.profile import GradientProfile, RowStatus
from gradprobe.spec.network import CheckSpec, Ignore
from gradprobe.theory.moments import Moments
from gradprobe.worker.exchange import decode, encode

JACOBIAN = JacobianProfile(Estimate(0.99, 0.01), Estimate(math.inf), Estimate(math.nan, 0.1))
CHECK = CheckSpec({"vanishing": 1e-6}, (Ignore("GP103", "meant", Place("net.yaml", 3, 5)),))
FULL = Measurement(
    profile(
        row("a", 1e-300, parameter("a.w", 1.0, None, trainable=False), line=3, column=5),
        row("b", None, kind="Linear+ReLU", status=RowStatus.NOT_RUN, jacobian=JACOBIAN),
        orphans=(parameter("lost", gradient=None),),
        loss=-0.0,
        input_finite=False,
    ),
    "a name \udc80\nwith ‮ lines",
    CHECK,
    {"seed": 0, "memory": 2**70, "dtype": "float32", "data": None},
    SecondLook(1e-300, {"a": -0.0, "b": math.inf}, math.nan, 6),
    NoLook("no", failed=True),
    Moments((2, 3), -0.0, 1e-300, math.nan, False),
)


def bits(value: object) -> object:
    """Floats by their bits, so that 0.0 does not equal -0.0; a NaN equals every other."""
    if isinstance(value, float):
        return struct.pack("d", value) if value == value else "NaN"
    if isinstance(value, GradientProfile):
        return [bits(getattr(value, name)) for name in value.__dataclass_fields__]
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, tuple) else value


def test_everything_comes_back_bit_for_bit() -> None:
    back = decode(Measurement, encode(FULL))
    assert bits(back) == bits(FULL)
    assert encode(back) == encode(FULL)


@given(st.lists(st.floats(), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_every_double_comes_back(values: list[float]) -> None:
    made = profile(*(row(str(i), value) for i, value in enumerate(values)), loss=values[0])
    assert bits(decode(GradientProfile, encode(made))) == bits(made)


def corruptions() -> list[str]:
    text = encode(FULL)
    body = json.loads(text)
    wrong = []
    for change in (
        lambda b: b.__delitem__(slice(3, None)),
        lambda b: b.append(1),
        lambda b: b[0].__setitem__("parameters", "many"),
        lambda b: b[0].__setitem__("parameters", True),
        lambda b: b[0].__setitem__("loss", None),
        lambda b: b[0]["rows"][0].__setitem__(4, "a status"),
        lambda b: b[0]["rows"].__setitem__(0, {"__class__": "os.system"}),
        lambda b: b.__setitem__(1, 7),
        lambda b: b.__setitem__(2, []),
        lambda b: b.__setitem__(3, []),
        lambda b: b.__setitem__(4, [*b[4][:3], 6, 7]),
    ):
        copy = json.loads(text)
        change(copy)
        wrong.append(json.dumps(copy))
    return [*wrong, "", "{}", "null", "[" * 5000, text[:-1], text + "x", json.dumps(body[0])]


@pytest.mark.parametrize("text", corruptions(), ids=lambda _: "")
def test_what_was_not_archived_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(Measurement, text)
