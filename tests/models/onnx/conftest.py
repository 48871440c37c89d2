"""Builders of ONNX models from text, and the check that every readable model must pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.onnx import OpenedOnnx, open_onnx

N = 4  # features of the usual input
ROWS = 6  # unlike every width in the tests
DOMAINS = {"ai.onnx.ml": 3, "com.microsoft": 1}


def build(
    nodes: str,
    arrays: Mapping[str, np.ndarray] | None = None,
    *,
    x: Sequence[int | str] | None = ("rows", N),
    y: str | Sequence[str] = "y",
    dtype: np.dtype | type = np.float32,
    out: Mapping[str, int] | None = None,
    opset: int = 17,
    ir: int = 8,
    listed: bool = False,
) -> onnx.ModelProto:
    """A model of input ``x``; ``nodes`` holds one node a line, in the text syntax of ONNX.

    ``listed`` lists the initializers as graph inputs too, as IR 3 demands; ``out`` gives other types than
    ``dtype`` to outputs.
    """
    lines = [line.strip() for line in nodes.strip().splitlines()]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in (arrays or {}).items()]
    inputs = [helper.make_tensor_value_info("x", kind, x)]
    if listed:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    names = [y] if isinstance(y, str) else y
    outputs = [helper.make_tensor_value_info(name, (out or {}).get(name, kind), None) for name in names]
    graph = helper.make_graph([onnx.parser.parse_node(line) for line in lines], "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(d, v) for d, v in DOMAINS.items() if any(n.domain == d for n in graph.node)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def run(model: onnx.ModelProto, x: np.ndarray, output: str | None = None) -> np.ndarray:
    """What ONNX Runtime gives, for the first output or the named one."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None if output is None else [output], {session.get_inputs()[0].name: x})[0]


def run_rows(model: onnx.ModelProto, rows: np.ndarray, output: str | None = None) -> np.ndarray:
    """``run`` for rows ``[rows, features]``, whatever the axes of the model's input; ``[rows, outputs]`` comes back."""
    weights = {t.name for t in model.graph.initializer}
    tensor = next(i for i in model.graph.input if i.name not in weights)
    dims = [d.dim_value for d in tensor.type.tensor_type.shape.dim]
    x = rows.astype(helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type))
    if 0 not in dims:
        each = [run(model, part.reshape(dims), output) for part in np.split(x, x.size // np.prod(dims))]
        return np.stack(each).reshape(len(rows), -1)
    axis = dims.index(0)
    others = [d or -1 for i, d in enumerate(dims) if i != axis]
    y = run(model, np.moveaxis(x.reshape(len(x), *others), 0, axis), output)
    if len(rows) in y.shape:
        y = np.moveaxis(y, y.shape.index(len(rows)), 0)
    return y.reshape(len(rows), -1)


def edited(opened: OpenedOnnx, seed: int = 0) -> MLP:
    """Another network of the same form: every third parameter of the model's own is 0, every third is changed."""
    rng = np.random.default_rng(seed)
    mlp = opened.mlp.replace(opened.mlp.theta.copy())
    for slot in opened.slots:
        view = mlp.parameter(slot.kind, slot.layer)
        choice = rng.integers(0, 3, view.shape)
        fresh = rng.normal(0, 0.5, view.shape) + (slot.kind == "norm_scale")
        view[...] = np.where(choice == 0, view, np.where(choice == 1, 0, fresh))
    return mlp


def check(
    model: onnx.ModelProto,
    *,
    tolerance: float = 2e-6,
    output: str | None = None,
    behind: Callable[[np.ndarray], np.ndarray] = lambda y: y,
    edit: bool = True,
) -> OpenedOnnx:
    """Read a model and compare it with ONNX Runtime: as it is, written back unchanged, and written back edited.

    ``behind`` is what the model does to the MLP's output.
    """
    before = model.SerializeToString(deterministic=True)
    opened = open_onnx(model)
    rows = np.random.default_rng(1).normal(size=(ROWS, opened.mlp.spec.n_inputs)).astype(np.float32)
    expected = run_rows(model, rows, output)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(behind(opened.mlp.forward(rows)), expected, atol=tolerance * scale, rtol=0)
    assert opened.write(opened.mlp).SerializeToString(deterministic=True) == before
    if edit:
        other = edited(opened)
        written = opened.write(other)
        assert model.SerializeToString(deterministic=True) == before
        result = run_rows(written, rows, output)
        scale = max(1.0, float(np.abs(result).max()))
        np.testing.assert_allclose(behind(other.forward(rows)), result, atol=2 * tolerance * scale, rtol=0)
        again = open_onnx(written)
        assert again.mlp.spec == opened.mlp.spec
        np.testing.assert_allclose(again.mlp.theta, other.theta, atol=1e3 * tolerance, rtol=1e3 * tolerance)
    return opened


def layers(*widths: int, seed: int = 0, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Weights ``w1 [in, out]``, biases ``b1`` and so on, for a network of these widths."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for i, (n, m) in enumerate(itertools.pairwise(widths), start=1):
        arrays[f"w{i}"] = rng.normal(0, 0.8, (n, m)).astype(dtype)
        arrays[f"b{i}"] = rng.normal(0, 0.5, m).astype(dtype)
    return arrays


class Kit:
    """What the tests of this folder use."""

    build = staticmethod(build)
    check = staticmethod(check)
    edited = staticmethod(edited)
    layers = staticmethod(layers)
    run = staticmethod(run)
    run_rows = staticmethod(run_rows)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit
