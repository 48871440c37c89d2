"""What the compiled core says to wrong arguments: an exception that names the argument, never a crash."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch
from metaedit_fast.kernels import native
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec

D_E, D_V = 4, 6
SHAPES = {
    "edge.weight": (D_E, D_E),
    "edge.bias": (D_E,),
    "source.weight": (D_E, D_V),
    "target.weight": (D_E, D_V),
    "update.weight": (D_E, D_E),
    "update.bias": (D_E,),
    "norm.weight": (D_V,),
    "norm.bias": (D_V,),
    "node_in.weight": (2 * D_V, D_V + 4 * D_E),
    "node_in.bias": (2 * D_V,),
    "node_out.weight": (D_V, 2 * D_V),
    "node_out.bias": (D_V,),
}


class Arguments:
    """Valid arguments of ``_core.shipped_forward``, to be spoiled one at a time."""

    def __init__(self) -> None:
        spec = MLPSpec.simple((3, 4, 4, 2), skips=[(1, 2)])
        self.batch = WeightGraphBatch.from_mlps([MLP(spec, np.zeros(spec.n_parameters))])
        self.blocks = self.batch.blocks.copy()
        self.h = np.ones((self.batch.n_nodes, D_V), np.float32)
        self.e = np.ones((self.batch.n_edges, D_E), np.float32)
        self.parameters = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
        self.isa: object = None
        self.precision: object = "float32"
        self.out: object = None

    def call(self) -> object:
        options = {"isa": self.isa, "precision": self.precision, "out": self.out}
        return _core.shipped_forward(self.blocks, self.h, self.e, self.parameters, **options)


def set_block(row: int, column: int, value: int) -> Callable[[Arguments], None]:
    def spoil(a: Arguments) -> None:
        a.blocks[row, column] = value

    return spoil


def set_field(name: str, change: Callable[[Arguments], object]) -> Callable[[Arguments], None]:
    return lambda a: setattr(a, name, change(a))


def set_parameter(name: str, value: object) -> Callable[[Arguments], None]:
    return lambda a: a.parameters.__setitem__(name, value)


HUGE = 2**62
WRONG: list[tuple[Callable[[Arguments], None], type[Exception], str]] = [
    (set_block(0, 0, -1), ValueError, r"blocks\[0\]: src_offset: .*got -1"),
    (set_block(0, 0, HUGE), ValueError, r"blocks\[0\]: src_offset"),
    (set_block(0, 1, 0), ValueError, r"blocks\[0\]: n_src: expected at least 1, got 0"),
    (set_block(0, 1, HUGE), ValueError, r"blocks\[0\]: src_offset"),
    (set_block(1, 3, -4), ValueError, r"blocks\[1\]: n_dst"),
    (set_block(2, 2, 12), ValueError, r"blocks\[2\]: dst_offset: .*the 13 nodes, got 12"),
    (set_block(0, 1, 13), ValueError, r"blocks\[0\]: n_src: expected at most the 40 edges that are left, got 13"),
    (set_block(1, 4, 11), ValueError, r"blocks\[1\]: edge_offset: expected 12 .*got 11"),
    (set_block(1, 5, 2), ValueError, r"blocks\[1\]: kind: expected 0 \(dense\) or 1 \(identity\), got 2"),
    (set_block(3, 1, 3), ValueError, r"blocks\[3\]: n_dst: expected n_src \(3\) in an identity block, got 4"),
    (set_field("blocks", lambda a: a.blocks[:3]), ValueError, r"blocks: expected 40 edges in all, got 36"),
    (set_field("blocks", lambda a: a.blocks[:, :5].copy()), ValueError, r"blocks: .*\[any, 6\], got shape \[4, 5\]"),
    (set_field("blocks", lambda a: a.blocks.astype(np.int32)), TypeError, r"blocks: .*int64.*got dtype int32"),
    (set_field("blocks", lambda a: a.blocks.tolist()), TypeError, r"blocks: .*got <class 'list'>"),
    (set_field("blocks", lambda a: np.asfortranarray(a.blocks)), ValueError, r"blocks: .*not C-contiguous"),
    (set_field("h", lambda a: a.h.astype(np.float64)), TypeError, r"h: expected a float32 .*got dtype float64"),
    (set_field("h", lambda a: a.h[:, 0]), ValueError, r"h: .*got shape \[13\]"),
    (set_field("h", lambda a: a.h[::2]), ValueError, r"h: .*not C-contiguous"),
    (set_field("h", lambda a: a.h[:, :0].copy()), ValueError, "at least one column"),
    (set_field("h", lambda a: a.h[1:]), ValueError, r"blocks\[2\]: dst_offset"),
    (set_field("e", lambda a: a.e[1:]), ValueError, r"blocks\[3\]: n_src: expected at most the 3 edges"),
    (set_field("e", lambda a: a.e.astype(">f4")), TypeError, r"e: .*got dtype >f4"),
    (set_parameter("edge.weight", np.ones((D_E, D_V), np.float32)), ValueError, r'"edge.weight".*\[4, 4\], got shape'),
    (set_parameter("edge.bias", np.ones(D_E)), TypeError, r'parameters\["edge.bias"\]: .*got dtype float64'),
    (set_parameter("edge.extra", np.ones(1)), ValueError, 'expected none with the name "edge.extra"'),
    (lambda a: a.parameters.pop("norm.bias"), ValueError, '"norm.bias" is missing'),
    (set_field("isa", lambda a: "mmx"), ValueError, r"isa: expected an instruction set .*\(serial.*\), got 'mmx'"),
    (set_field("isa", lambda a: ""), ValueError, "isa: expected an instruction set"),
    (set_field("precision", lambda a: "half"), ValueError, "precision: expected 'float32', 'bf16x3' or .* got 'half'"),
    (set_field("precision", lambda a: None), TypeError, "incompatible function arguments"),
    (set_field("out", lambda a: (a.h, np.empty_like(a.e))), ValueError, r"out\[0\]: expected memory apart"),
    (set_field("out", lambda a: (np.empty_like(a.h), a.e)), ValueError, r"out\[1\]: expected memory apart"),
    (set_field("out", lambda a: (np.empty_like(a.h[1:]), a.e)), ValueError, r"out\[0\]: .*got shape \[12, 6\]"),
    (set_field("out", lambda a: np.empty_like(a.h)), TypeError, "out: expected a tuple"),
]


def test_the_unspoiled_arguments_are_right() -> None:
    assert np.isfinite(Arguments().call()[0]).all()


@pytest.mark.parametrize(("spoil", "error", "message"), WRONG)
def test_wrong_arguments(spoil: Callable[[Arguments], None], error: type[Exception], message: str) -> None:
    arguments = Arguments()
    spoil(arguments)
    with pytest.raises(error, match=message):
        arguments.call()


def test_read_only_outputs_are_refused() -> None:
    arguments = Arguments()
    frozen = np.empty_like(arguments.h)
    frozen.flags.writeable = False
    arguments.out = (frozen, np.empty_like(arguments.e))
    with pytest.raises(ValueError, match="writeable"):
        arguments.call()


def test_misaligned_arrays_are_refused() -> None:
    arguments = Arguments()
    buffer = np.zeros(arguments.h.nbytes + 1, np.uint8)
    arguments.h = buffer[1:].view(np.float32).reshape(arguments.h.shape)
    with pytest.raises(ValueError, match="aligned"):
        arguments.call()


def test_the_wrapper_names_what_it_expects() -> None:
    a = Arguments()
    with pytest.raises(ValueError, match=r"form: expected one of \('shipped', 'official'\), got 'other'"):
        native.layer_forward("other", a.batch, a.h, a.e, a.parameters)
    with pytest.raises(ValueError, match=r"h: expected shape \[13, any\], got \(14, 6\)"):
        native.layer_forward("shipped", a.batch, np.ones((14, D_V), np.float32), a.e, a.parameters)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("view", ["plain", "strided", "transposed", "empty", "scalar"])
def test_erf(dtype: type[np.floating], view: str) -> None:
    z = np.linspace(-4, 4, 120).reshape(4, 5, 6).astype(dtype)
    z = {"plain": z, "strided": z[::2, 1:], "transposed": z.T, "empty": z[:0], "scalar": z[0, 0, 0]}[view]
    before = z.copy()
    got = _core.erf(z)
    assert got.dtype == dtype
    assert got.shape == z.shape
    expected = np.vectorize(math.erf, otypes=[np.float64])(z) if z.size else z
    np.testing.assert_allclose(got, expected, atol=2 * np.finfo(dtype).eps, rtol=0)
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize("values", [np.zeros(3, np.int64), np.zeros(3, np.float16), np.zeros(3, ">f8"), [0.0], 0.0])
def test_erf_refuses_other_types(values: object) -> None:
    with pytest.raises(TypeError, match="values: expected a float32 or float64 array, got "):
        _core.erf(values)
