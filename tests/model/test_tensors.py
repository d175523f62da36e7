"""The one walker over what modules take and return."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from gradprobe.model.tensors import first_tensor, fresh, map_tensors, tensors_in, with_tensor

Pair = namedtuple("Pair", "words logits")


@dataclass
class Output:
    loss: Tensor | None = None
    logits: Tensor | None = None


class Stack(list[Any]):
    """A list that pytree takes for a leaf."""


A, B = torch.ones(2), torch.zeros(3)


@pytest.mark.parametrize(
    "value",
    [
        (A, B),
        [A, ["x", (B,)]],
        {"a": A, "b": {"c": B}},
        Pair(A, B),
        OrderedDict(a=A, b=B),
        UserDict(a=A, b=B),  # as transformers' BatchEncoding is
        Output(A, B),
        Stack([A, None, B]),
        [Output(None, A), UserDict(x=[B])],
    ],
)
def test_every_tensor_is_seen_in_order(value: Any) -> None:
    assert [id(tensor) for tensor in tensors_in(value)] == [id(A), id(B)]
    assert first_tensor(value) is A


@pytest.mark.parametrize(
    "value", [(A, 1), [A], {"a": A, "b": "x"}, Pair("x", A), OrderedDict(a=A)], ids=repr
)
def test_mapping_keeps_the_type_and_what_is_no_tensor(value: Any) -> None:
    doubled = map_tensors(lambda tensor: tensor * 2, value)
    assert type(doubled) is type(value)
    assert torch.equal(next(tensors_in(doubled)), A * 2)
    assert repr(map_tensors(lambda tensor: tensor, value)) == repr(value)


def test_a_packed_sequence_is_mapped_too() -> None:
    packed = pack_padded_sequence(torch.randn(2, 3, 4), torch.tensor([3, 2]), batch_first=True)
    copied = fresh(packed)
    assert isinstance(copied, PackedSequence)
    assert copied.data is not packed.data
    assert torch.equal(copied.data, packed.data)
    assert first_tensor(packed) is packed.data


def test_an_output_of_transformers_is_mapped_too() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    output = outputs.BaseModelOutput(last_hidden_state=A, hidden_states=(A, B))
    assert [id(tensor) for tensor in tensors_in(output)] == [id(A), id(A), id(B)]
    other = with_tensor(output, A, B)
    assert type(other) is type(output)
    assert other.last_hidden_state is B
    assert other.hidden_states == (B, B)


def test_a_tensor_that_is_given_twice_is_copied_once() -> None:
    first, (second,) = fresh((A, [A]))
    assert first is second
    assert first is not A
