"""An MLP as a fresh ONNX model, which ``open_onnx`` reads back bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec

OPSET, OPSET_WITH_GELU = 17, 20
IR_VERSION = 8
OUTPUT_KEY = "metaedit_fast.output"
_ONE_NODE = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}


def mlp_to_onnx(mlp: MLP) -> onnx.ModelProto:
    """An ONNX model: input ``x [rows, n_inputs]``, output ``y [rows, n_outputs]``, float32.

    Standard operators of opset 17, or 20 where there is a GELU. What ``spec.output`` calls identity and
    logits is one graph; the metadata tell them apart.
    """
    builder = _Builder(mlp)
    value = builder.normalised("x")
    outputs = [value]
    for index, layer in enumerate(mlp.spec.layers):
        value = builder.layer(index, layer, outputs)
        outputs.append(value)
    builder.finish(value)
    spec = mlp.spec
    graph = helper.make_graph(
        builder.nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", spec.n_inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", spec.n_outputs])],
        builder.initializers,
    )
    gelu = any(layer.activation.startswith("gelu") for layer in spec.layers)
    opset = helper.make_opsetid("", OPSET_WITH_GELU if gelu else OPSET)
    model = helper.make_model(graph, opset_imports=[opset], producer_name="metaedit_fast", ir_version=IR_VERSION)
    helper.set_model_props(model, {OUTPUT_KEY: spec.output})
    return model


class _Builder:
    """Collects nodes and initializers; the methods give the name of their result."""

    def __init__(self, mlp: MLP) -> None:
        self.mlp = mlp
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if all(tensor.name != name for tensor in self.initializers):
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def normalised(self, value: str) -> str:
        mlp = self.mlp
        if mlp.input_scale is not None:
            value = self.node("Mul", [value, self.constant("input_scale", mlp.input_scale)], "scaled_input")
        if mlp.input_shift is not None:
            value = self.node("Add", [value, self.constant("input_shift", mlp.input_shift)], "normalised_input")
        return value

    def layer(self, index: int, layer: LayerSpec, outputs: list[str]) -> str:
        name, mlp = f"layers.{index}", self.mlp
        inputs = [outputs[-1], self.constant(f"{name}.weight", mlp.weight(index))]
        if layer.bias:
            inputs.append(self.constant(f"{name}.bias", mlp.bias(index)))
        value = self.node("Gemm", inputs, f"{name}.linear")
        if not layer.bias and mlp.bias(index).any():
            value = self.node("Add", [value, self.fixed(f"{name}.fixed_bias", mlp.bias(index))], f"{name}.shifted")
        if layer.norm == "layer":
            value = self.norm(index, layer, value)
        for source in mlp.spec.skips_into(index + 1):
            value = self.skip(index + 1, source, value, outputs[source])
        return self.activation(layer, value, f"{name}.output")

    def norm(self, index: int, layer: LayerSpec, value: str) -> str:
        name = f"layers.{index}.norm"
        scale, shift = (self.mlp.parameter(kind, index) for kind in ("norm_scale", "norm_shift"))
        put = self.constant if layer.norm_affine else self.fixed
        inputs = [value, put(f"{name}.scale", scale)]
        if layer.norm_affine or shift.any():
            inputs.append(put(f"{name}.shift", shift))
        return self.node("LayerNormalization", inputs, name, axis=-1, epsilon=layer.eps)

    def fixed(self, name: str, value: NDArray[np.float32]) -> str:
        """Numbers that the model does not own as a parameter: computed, so that no reader takes them for one."""
        if (value == value[0]).all():
            number = numpy_helper.from_array(value[:1], f"{name}.number")
            size = self.constant(f"{name}.size", np.array(value.shape, np.int64))
            return self.node("ConstantOfShape", [size], name, value=number)
        parts = [self.constant(f"{name}.numbers", value), self.constant(f"{name}.none", value[:0])]
        return self.node("Concat", parts, name, axis=0)

    def skip(self, target: int, source: int, value: str, branch: str) -> str:
        widths, name = self.mlp.spec.widths, f"layers.{target - 1}.skip_from_{source}"
        shared, width = min(widths[source], widths[target]), widths[target]
        if shared < widths[source]:
            ends = self.constant(f"first_{shared}", np.array([shared], np.int64))
            bounds = [self.constant("slice_start", np.array([0], np.int64)), ends]
            axis = self.constant("slice_axis", np.array([1], np.int64))
            branch = self.node("Slice", [branch, *bounds, axis], f"{name}.first")
        if shared < width:
            pads = self.constant(f"pad_{width - shared}", np.array([0, 0, 0, width - shared], np.int64))
            branch = self.node("Pad", [branch, pads], f"{name}.padded")
        return self.node("Add", [value, branch], name)

    def activation(self, layer: LayerSpec, value: str, name: str) -> str:
        kind = layer.activation
        if kind == "identity":
            return value
        if kind in _ONE_NODE:
            return self.node(_ONE_NODE[kind], [value], name)
        if kind in ("gelu", "gelu_tanh"):
            return self.node("Gelu", [value], name, approximate="none" if kind == "gelu" else "tanh")
        if kind == "silu":
            return self.node("Mul", [value, self.node("Sigmoid", [value], f"{name}.gate")], name)
        if kind == "relu6":
            bounds = [self.constant(f"clip_{n}", np.array(n, np.float32)) for n in (0, 6)]
            return self.node("Clip", [value, *bounds], name)
        return self.node({"leaky_relu": "LeakyRelu", "elu": "Elu"}[kind], [value], name, alpha=layer.alpha)

    def finish(self, value: str) -> None:
        output = self.mlp.spec.output
        if output == "softmax":
            self.node("Softmax", [value], "y", axis=-1)
        elif output == "log_softmax":
            self.node("LogSoftmax", [value], "y", axis=-1)
        elif output == "sigmoid":
            self.node("Sigmoid", [value], "y")
        else:
            self.node("Identity", [value], "y")
