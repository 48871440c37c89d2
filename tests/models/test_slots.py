"""How values travel between θ and foreign arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.slots import Slot, collect, fill
from metaedit_fast.models.spec import MLPSpec

FINITE = st.floats(-100, 100, width=32)


@given(
    stored=hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    scale=hnp.arrays(np.float64, (2,), elements=st.floats(-3, 3)),
    shift=st.floats(-5, 5),
    transpose=st.booleans(),
)
def test_what_was_loaded_is_stored_with_the_same_bits(stored, scale, shift, transpose):
    foreign = np.ascontiguousarray(stored.T) if transpose else stored
    slot = Slot("weight", 0, "w", transpose, scale, shift)
    written = slot.store(slot.load(foreign, (3, 2)), foreign)
    assert written.tobytes() == foreign.tobytes()


@given(
    stored=hnp.arrays(np.float32, (3, 2), elements=FINITE),
    scale=hnp.arrays(np.float64, (2,), elements=st.floats(0.25, 4)),
    shift=st.floats(-5, 5),
    row=st.integers(0, 2),
    column=st.integers(0, 1),
    new=FINITE,
)
def test_a_changed_element_changes_alone(stored, scale, shift, row, column, new):
    slot = Slot("weight", 0, "w", scale=scale, shift=shift)
    value = slot.load(stored, (3, 2))
    value[row, column] = new
    written = slot.store(value, stored)
    assert np.isclose(slot.load(written, (3, 2))[row, column], new, rtol=1e-5, atol=1e-4)
    others = np.ones((3, 2), bool)
    others[row, column] = False
    assert written[others].tobytes() == stored[others].tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_dtype_and_the_precision_of_untouched_elements_stay(dtype):
    stored = np.array([1.1, 2.2, 3.3], dtype)
    slot = Slot("bias", 0, "b")
    value = slot.load(stored, (3,))
    value[0] = 0.0
    written = slot.store(value, stored)
    assert written.dtype == dtype
    assert written[0] == 0
    assert written[1:].tobytes() == stored[1:].tobytes()


def test_a_zero_scale_lets_zeros_of_either_sign_pass_and_nothing_else():
    stored = np.array([-3.0, 2.0], np.float32)
    slot = Slot("bias", 1, "bn.bias", scale=np.array([0.0, 1.0]))
    value = slot.load(stored, (2,))
    assert not np.signbit(value).any()
    assert slot.store(np.array([-0.0, 2.0], np.float32), stored) is stored
    with pytest.raises(UnsupportedModelError, match=r"bn\.bias.*bias of layer 1.*exactly 0"):
        slot.store(np.array([1.0, 2.0], np.float32), stored)


def test_an_edit_that_overflows_the_dtype_is_refused():
    stored = np.ones(2, np.float16)
    with pytest.raises(UnsupportedModelError, match="does not fit float16"):
        Slot("bias", 0, "b").store(np.array([1e6, 1], np.float32), stored)


def test_a_broadcast_array_grows_only_when_it_must():
    stored = np.array([2.0], np.float32)
    slot = Slot("bias", 0, "b")
    value = slot.load(stored, (3,))
    assert value.tolist() == [2, 2, 2]
    assert slot.store(value, stored) is stored
    value[1] = 5
    assert slot.store(value, stored).tolist() == [2, 5, 2]


@settings(deadline=None)
@given(
    weights=hnp.arrays(np.float32, (3, 2), elements=FINITE),
    offset=hnp.arrays(np.float64, (3,), elements=st.floats(-2, 2)),
    edited=hnp.arrays(np.float32, (3, 2), elements=FINITE),
    new_bias=hnp.arrays(np.float32, (2,), elements=FINITE),
)
def test_an_input_offset_follows_the_weights(weights, offset, edited, new_bias):
    spec = MLPSpec.simple((3, 2))
    slots = [Slot("bias", 0, "b", offset=offset), Slot("weight", 0, "w")]
    arrays = {"w": weights, "b": np.array([1.0, -1.0], np.float32)}
    mlp = MLP(spec, np.zeros(spec.n_parameters))
    fill(mlp, slots, arrays)
    assert np.allclose(mlp.bias(0), arrays["b"] + offset @ weights.astype(np.float64), atol=1e-4)
    assert collect(mlp, slots, arrays)["b"] is arrays["b"]
    mlp.weight(0)[...] = edited
    mlp.bias(0)[...] = new_bias
    written = collect(mlp, slots, arrays)
    # The foreign model computes (h + offset) W + b.
    assert np.allclose(written["b"] + offset @ edited.astype(np.float64), new_bias, atol=2e-4)
