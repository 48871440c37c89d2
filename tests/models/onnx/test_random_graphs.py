"""Random chains of everything that is read: the reading equals ONNX Runtime, and writing back keeps the bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

LINEARS = ["gemm", "gemm_t", "matmul", "matmul_add", "matmul_radd", "matmul_sub", "gemm_scaled", "gemm_no_bias"]
BEHIND = ["mul", "add", "sub", "rsub", "div", "neg", "batch_norm", "identity"]
NORMS = ["none", "none", "layer_norm", "layer_norm_no_shift", "layer_norm_nodes"]
ACTIVATIONS = ["Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "silu", "gelu", "clip", "none"]
MOVES = ["dropout", "identity", "there_and_back", "cast"]
OUTPUTS = ["none", "Softmax", "ArgMax"]


class Writer:
    """Writes nodes of a random chain; ``h`` is the tensor at its end."""

    def __init__(self, seed: int, width: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.n_inputs, self.width, self.h, self.count = width, width, "x", 0
        self.nodes: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}

    def array(self, *shape: int, scale: float = 0.7, around: float = 0.0) -> str:
        name = f"c{len(self.arrays)}"
        self.arrays[name] = (around + self.rng.normal(0, scale, shape)).astype(np.float32)
        return name

    def scale(self) -> str:
        name = self.array(self.width)
        self.arrays[name] = (self.rng.uniform(0.5, 1.5, self.width) * self.rng.choice([-1, 1], self.width)).astype(
            np.float32
        )
        return name

    def node(self, text: str) -> str:
        self.count += 1
        self.nodes.append(f"t{self.count} = {text}")
        return f"t{self.count}"

    def then(self, text: str) -> None:
        self.h = self.node(text)

    def linear(self, kind: str, width: int) -> None:
        shape, self.width = (self.width, width), width
        if kind == "gemm":
            self.then(f"Gemm({self.h}, {self.array(*shape)}, {self.array(width)})")
        elif kind == "gemm_t":
            self.then(f"Gemm<transB = 1>({self.h}, {self.array(*shape[::-1])}, {self.array(1, width)})")
        elif kind == "gemm_scaled":
            self.then(f"Gemm<alpha = 0.5, beta = 2.0>({self.h}, {self.array(*shape)}, {self.array(width)})")
        elif kind == "gemm_no_bias":
            self.then(f"Gemm({self.h}, {self.array(*shape)})")
        else:
            self.then(f"MatMul({self.h}, {self.array(*shape)})")
            if kind == "matmul_add":
                self.then(f"Add({self.h}, {self.array(width)})")
            elif kind == "matmul_radd":
                self.then(f"Add({self.array(1, width)}, {self.h})")
            elif kind == "matmul_sub":
                self.then(f"Sub({self.h}, {self.array(width)})")

    def affine(self, kind: str) -> None:
        texts = {
            "mul": lambda: f"Mul({self.h}, {self.scale()})",
            "add": lambda: f"Add({self.array(self.width)}, {self.h})",
            "sub": lambda: f"Sub({self.h}, {self.array(1)})",
            "rsub": lambda: f"Sub({self.array(self.width)}, {self.h})",
            "div": lambda: f"Div({self.h}, {self.scale()})",
            "neg": lambda: f"Neg({self.h})",
            "identity": lambda: f"Identity({self.h})",
            "batch_norm": lambda: (
                f"BatchNormalization({self.h}, {self.scale()}, {self.array(self.width)}, {self.array(self.width)}, "
                f"{self.array(self.width, scale=0.05, around=1)})"
            ),
        }
        self.then(texts[kind]())

    def norm(self, kind: str) -> None:
        if kind == "layer_norm":
            self.then(f"LayerNormalization<epsilon = 0.01>({self.h}, {self.scale()}, {self.array(self.width)})")
        elif kind == "layer_norm_no_shift":
            self.then(f"LayerNormalization<epsilon = 0.01>({self.h}, {self.scale()})")
        elif kind == "layer_norm_nodes":
            self.arrays["eps"] = np.float32(0.01)
            mean = self.node(f"ReduceMean<axes = [1]>({self.h})")
            centred = self.node(f"Sub({self.h}, {mean})")
            square = self.node(f"Mul({centred}, {centred})")
            variance = self.node(f"ReduceMean<axes = [-1]>({square})")
            padded = self.node(f"Add({variance}, eps)")
            std = self.node(f"Sqrt({padded})")
            self.then(f"Div({centred}, {std})")
            self.then(f"Mul({self.h}, {self.scale()})")
            self.then(f"Add({self.h}, {self.array(self.width)})")

    def activation(self, kind: str) -> None:
        if kind == "silu":
            gate = self.node(f"Sigmoid({self.h})")
            self.then(f"Mul({self.h}, {gate})")
        elif kind == "gelu":
            self.arrays |= {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
            divided = self.node(f"Div({self.h}, root)")
            erf = self.node(f"Erf({divided})")
            gate = self.node(f"Add({erf}, one)")
            self.then(f"Mul({self.h}, {gate})")
            self.then(f"Mul({self.h}, half)")
        elif kind == "clip":
            self.arrays |= {"zero": np.float32(0), "six": np.float32(6)}
            self.then(f"Clip({self.h}, zero, six)")
        elif kind != "none":
            self.then(f"{kind}({self.h})")

    def move(self, kind: str) -> None:
        if kind == "there_and_back":
            self.arrays |= {"there": np.array([0, 1, -1]), "back": np.array([0, -1])}
            self.then(f"Reshape({self.h}, there)")
            self.then(f"Reshape({self.h}, back)")
        else:
            self.then(
                {"dropout": "Dropout({})", "identity": "Identity({})", "cast": "Cast<to = 1>({})"}[kind].format(self.h)
            )


@st.composite
def chains(draw: st.DrawFn) -> tuple[Writer, str]:
    writer = Writer(draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 5)))
    for kind in draw(st.lists(st.sampled_from(BEHIND), max_size=2)):
        writer.affine(kind)
    outputs: list[tuple[str, int]] = [(writer.h, writer.width)]
    for _ in range(draw(st.integers(0, 3))):
        writer.linear(draw(st.sampled_from(LINEARS)), draw(st.integers(2, 5)))
        for kind in draw(st.lists(st.sampled_from(BEHIND), max_size=2)):
            writer.affine(kind)
        writer.norm(draw(st.sampled_from(NORMS)))
        equal = [h for h, width in outputs if width == writer.width]
        if equal and draw(st.booleans()):
            writer.then(f"Add({writer.h}, {draw(st.sampled_from(equal))})")
        activation = draw(st.sampled_from(ACTIVATIONS))
        writer.activation(activation)
        for kind in draw(st.lists(st.sampled_from(MOVES), max_size=2)):
            writer.move(kind)
        outputs.append((writer.h, writer.width))
    writer.linear(draw(st.sampled_from(LINEARS)), draw(st.integers(2, 3)))
    return writer, draw(st.sampled_from(OUTPUTS))


@settings(max_examples=150, deadline=None)
@given(chain=chains())
def test_random_chains(kit, chain):
    writer, output = chain
    text = "\n".join(writer.nodes)
    tail = {
        "none": "y = Identity({})",
        "Softmax": "y = Softmax({})",
        "ArgMax": "y = ArgMax<axis = 1, keepdims = 1>({})",
    }
    model = kit.build(
        f"{text}\n{tail[output].format(writer.h)}",
        writer.arrays,
        x=("rows", writer.n_inputs),
        out={"y": 7} if output == "ArgMax" else {},
    )
    if output == "ArgMax":
        kit.check(model, behind=lambda p: p.argmax(axis=1)[:, None], edit=False)
    else:
        opened = kit.check(model, tolerance=2e-5)
        assert opened.mlp.spec.output == ("softmax" if output == "Softmax" else "logits")
