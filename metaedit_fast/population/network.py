"""Many MLPs of the same widths as one stack of tensors, with a forward and backward pass written out.

Stacking makes a run cheap: one ``baddbmm`` multiplies for all runs, and what differs between them (norm, skips,
activation, dropout) is either a contiguous slice of the stack or a mask. Autograd would keep more and copy more,
and on these small layers its bookkeeping costs as much as the arithmetic.

Layer semantics are those of ``MLPSpec``, with dropout after the activation:
``z = norm(h W + b); z[:, :c] += h_s[:, :c]; h = dropout(act(z))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaedit_fast.population.sampling import RunSpec, stream

_aten: Any = torch.ops.aten  # the dispatcher's functions carry no types
NORM_EPS = 1e-5
_BATCH_NORM_MOMENTUM = 0.1
_NORM_ORDER = ("batch", "layer", "none")


def stacking_order(runs: Sequence[RunSpec]) -> list[RunSpec]:
    """Sort the runs so that equal norms, and within them equal activations, are neighbours in the stack."""
    return sorted(runs, key=lambda r: (_NORM_ORDER.index(r.norm), r.spec.layers[0].activation, r.run))


class Stack:
    """The parameters of K runs of the same widths, and their passes.

    ``runs`` come in stacking order. ``parameters`` and ``gradients`` are flat float32 vectors; per layer
    ``weight`` ``[K, n_in, n_out]``, ``bias`` ``[K, 1, n_out]`` and, for the first ``n_normed`` runs, ``scale``
    and ``shift`` ``[n_normed, 1, n_out]`` are contiguous views into them, so an optimiser step is a few
    operations on one vector. The last layer alone is kept transposed, weight ``[K, n_out, n_in]`` and bias
    ``[K, n_out, 1]``, and so are the logits: products with a last dimension of 2 take ten times as long.
    """

    def __init__(self, runs: Sequence[RunSpec]) -> None:
        self.runs = list(runs)
        self.widths = runs[0].spec.widths
        k = len(self.runs)
        self.n_batch = sum(r.norm == "batch" for r in runs)
        self.n_normed = self.n_batch + sum(r.norm == "layer" for r in runs)
        self.depth = len(self.widths) - 2
        shapes: list[tuple[str, tuple[int, int, int]]] = []
        for n_in, n_out in zip(self.widths[:-1], self.widths[1:], strict=True):
            shapes += [("weight", (k, n_in, n_out)), ("bias", (k, 1, n_out))]
        shapes[-2:] = [("weight", (k, n_out, n_in)), ("bias", (k, n_out, 1))]
        for width in self.widths[1:-1]:
            shapes += [("scale", (self.n_normed, 1, width)), ("shift", (self.n_normed, 1, width))]
        self.shapes = shapes
        total = sum(a * b * c for _, (a, b, c) in shapes)
        self.parameters, self.gradients = torch.zeros(total), torch.zeros(total)
        self.weight, self.bias, self.scale, self.shift = self._views(self.parameters)
        self.d_weight, self.d_bias, self.d_scale, self.d_shift = self._views(self.gradients)
        self.running_mean = [torch.zeros(self.n_batch, 1, w) for w in self.widths[1:-1]]
        self.running_var = [torch.ones(self.n_batch, 1, w) for w in self.widths[1:-1]]
        self.activations = _slices([r.spec.layers[0].activation for r in runs])
        self.skips = self._skip_masks()
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._initialise()

    def expand(self, per_run: Sequence[float], *, only: Sequence[str]) -> Tensor:
        """A vector like ``parameters``: each run's value at its parameters of the kinds ``only``, 0 elsewhere."""
        values = torch.tensor(per_run, dtype=torch.float64).float()
        parts = [
            values[: shape[0]].repeat_interleave(shape[1] * shape[2]) * float(kind in only)
            for kind, shape in self.shapes
        ]
        return torch.cat(parts)

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None, *, training: bool = False) -> Tensor:
        """Logits ``[K, n_outputs, rows]`` of rows ``[K, rows, n_inputs]``.

        ``masks`` holds for each hidden layer what dropout multiplies by, ``[K, rows, width]``. In training,
        batch norm uses the batch's statistics and updates the running ones, and everything that ``backward``
        needs is kept.
        """
        self._h: list[Tensor] = [x]
        self._z: list[Tensor] = []
        self._y: list[Tensor] = []
        self._masks = masks
        self._hat: list[tuple[Tensor | None, Tensor | None]] = []
        self._rstd: list[tuple[Tensor | None, Tensor | None]] = []
        for i in range(self.depth):
            z = self._buffer("z", i, x)
            torch.baddbmm(self.bias[i], self._h[i], self.weight[i], out=z)
            self._normalise(i, z, training=training)
            for source, mask in self.skips[i]:
                h = self._h[source]
                z[:, :, : h.shape[2]].addcmul_(h, mask)
            y = self._buffer("y", i, x)
            for name, where in self.activations:
                _activate(name, z[where], y[where])
            self._z.append(z)
            self._y.append(y)
            self._h.append(y if masks is None else torch.mul(y, masks[i], out=self._buffer("h", i, x)))
        return torch.baddbmm(self.bias[-1], self.weight[-1], self._h[-1].transpose(1, 2))

    def backward(self, gradient: Tensor) -> None:
        """Fill ``gradients`` from that of a loss with respect to the logits, ``[K, n_outputs, rows]``."""
        pending: dict[int, Tensor] = {}
        torch.bmm(gradient, self._h[-1], out=self.d_weight[-1])
        torch.sum(gradient, 2, keepdim=True, out=self.d_bias[-1])
        g = self._buffer("g", self.depth - 1, self._h[-1])
        torch.bmm(gradient.transpose(1, 2), self.weight[-1], out=g)
        for i in reversed(range(self.depth)):
            self._through_layer(i, g, pending)
            torch.bmm(self._h[i].transpose(1, 2), g, out=self.d_weight[i])
            torch.sum(g, 1, keepdim=True, out=self.d_bias[i])
            if i > 0:
                into = self._buffer("g", i - 1, g)
                torch.bmm(g, self.weight[i].transpose(1, 2), out=into)
                if i in pending:
                    into.add_(pending.pop(i))
                g = into

    def _through_layer(self, i: int, g: Tensor, pending: dict[int, Tensor]) -> None:
        """From the gradient at the outputs of hidden layer i to that at its linear part, in place."""
        if self._masks is not None:
            g.mul_(self._masks[i])
        for name, where in self.activations:
            _activate_backward(name, g[where], self._z[i][where], self._y[i][where])
        for source, mask in self.skips[i]:
            share = g[:, :, : self.widths[source]] * mask
            pending[source] = pending[source].add_(share) if source in pending else share
        for part, (where, mine) in enumerate(self._norm_slices()):
            hat, rstd = self._hat[i][part], self._rstd[i][part]
            if hat is None or rstd is None:
                continue
            there, scale = g[where], self.scale[i][mine]
            d_scale, d_shift = self.d_scale[i][mine], self.d_shift[i][mine]
            torch.sum(there * hat, 1, keepdim=True, out=d_scale)
            torch.sum(there, 1, keepdim=True, out=d_shift)
            if part == 0:
                rows = there.shape[1]
                there.sub_(d_shift / rows).addcmul_(hat, d_scale / rows, value=-1).mul_(scale * rstd)
            else:
                there.mul_(scale)
                width = there.shape[2]
                # dx of a layer norm whose input was already standardised, then its own deviation.
                zeros, ones = torch.zeros_like(rstd), torch.ones_like(rstd)
                inner = _aten.native_layer_norm_backward(
                    there, hat, [width], zeros, ones, None, None, [True, False, False]
                )[0]
                torch.mul(inner, rstd, out=there)

    def _normalise(self, i: int, z: Tensor, *, training: bool) -> None:
        hats: list[Tensor | None] = [None, None]
        rstds: list[Tensor | None] = [None, None]
        for part, (where, mine) in enumerate(self._norm_slices()):
            there = z[where]
            if not len(there):
                continue
            if part == 1:
                hat, _, rstd = torch.native_layer_norm(there, [there.shape[2]], None, None, NORM_EPS)
            else:
                rows = there.shape[1]
                mean = there.mean(1, keepdim=True) if training else self.running_mean[i]
                hat = there - mean
                var = self.running_var[i]
                if training:
                    # Two plain sums: torch.var_mean over a middle dimension is many times slower.
                    var = (hat * hat).mean(1, keepdim=True)
                    self.running_mean[i].lerp_(mean, _BATCH_NORM_MOMENTUM)
                    self.running_var[i].lerp_(var * (rows / (rows - 1)), _BATCH_NORM_MOMENTUM)
                rstd = (var + NORM_EPS).rsqrt_()
                hat.mul_(rstd)
            torch.addcmul(self.shift[i][mine], hat, self.scale[i][mine], out=there)
            hats[part], rstds[part] = hat, rstd
        self._hat.append((hats[0], hats[1]))
        self._rstd.append((rstds[0], rstds[1]))

    def _norm_slices(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where the runs with batch norm and with layer norm lie, in the stack and among the normed runs."""
        batch, layer = slice(0, self.n_batch), slice(self.n_batch, self.n_normed)
        return (batch, batch), (layer, layer)

    def _views(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        found: dict[str, list[Tensor]] = {"weight": [], "bias": [], "scale": [], "shift": []}
        start = 0
        for kind, (a, b, c) in self.shapes:
            found[kind].append(flat[start : start + a * b * c].view(a, b, c))
            start += a * b * c
        return found["weight"], found["bias"], found["scale"], found["shift"]

    def _skip_masks(self) -> list[list[tuple[int, Tensor]]]:
        """Per hidden layer its sources, each with ``[K, 1, 1]`` ones and zeros: which runs have the skip."""
        out: list[list[tuple[int, Tensor]]] = []
        for target in range(1, self.depth + 1):
            row = []
            for source in range(1, target):
                has = torch.tensor([float((source, target) in r.spec.skips) for r in self.runs])
                if has.any():
                    row.append((source, has.view(-1, 1, 1)))
            out.append(row)
        return out

    def _initialise(self) -> None:
        """The default of torch's linear layer: weights and biases uniform within ``±1/sqrt(n_in)``."""
        for k, run in enumerate(self.runs):
            rng = stream(run, "init")
            for i, n_in in enumerate(self.widths[:-1]):
                weight = self.weight[i][k] if i < self.depth else self.weight[i][k].T
                for target in (weight, self.bias[i][k]):
                    values = (2 * rng.random(tuple(target.shape), dtype=np.float32) - 1) / np.float32(np.sqrt(n_in))
                    target.copy_(torch.from_numpy(values))
        for scale in self.scale:
            scale.fill_(1.0)

    def _buffer(self, name: str, i: int, like: Tensor) -> Tensor:
        """Hidden layer i's scratch tensor, kept between steps; evaluation with other row counts gets its own."""
        shape = (like.shape[0], like.shape[1], self.widths[i + 1])
        found = self._buffers.get((name, i))
        if found is None or found.shape != shape:
            found = self._buffers[name, i] = torch.empty(shape)
        return found

    def theta(self, k: int) -> NDArray[np.float32]:
        """Run k's parameters in the order of its stored spec, batch norm folded into the linear layers."""
        run = self.runs[k]
        values: dict[tuple[str, int], NDArray[np.float64]] = {}
        for i in range(self.depth + 1):
            weight, bias = self.weight[i][k].double(), self.bias[i][k].ravel().double()
            weight = weight if i < self.depth else weight.T
            if i < self.depth and run.norm == "batch":
                factor = self.scale[i][k, 0] / (self.running_var[i][k, 0].double() + NORM_EPS).sqrt()
                weight = weight * factor
                bias = (bias - self.running_mean[i][k, 0]) * factor + self.shift[i][k, 0]
            if i < self.depth and run.norm == "layer":
                values["norm_scale", i] = self.scale[i][k, 0].numpy()
                values["norm_shift", i] = self.shift[i][k, 0].numpy()
            values["weight", i], values["bias", i] = weight.numpy(), bias.numpy()
        out = np.empty(run.spec.n_parameters, np.float32)
        for kind, layer, where, _ in run.spec.parameter_slices:
            out[where] = values[kind, layer].ravel()
        return out


def _slices(names: Sequence[str]) -> list[tuple[str, slice]]:
    """Runs of equal names: each with the slice where it lies."""
    out: list[tuple[str, slice]] = []
    for k, name in enumerate(names):
        if out and out[-1][0] == name:
            out[-1] = (name, slice(out[-1][1].start, k + 1))
        else:
            out.append((name, slice(k, k + 1)))
    return out


def _activate(name: str, z: Tensor, out: Tensor) -> None:
    match name:
        case "relu":
            torch.clamp_min(z, 0.0, out=out)
        case "gelu":
            _aten.gelu.out(z, approximate="none", out=out)
        case "silu":
            _aten.silu.out(z, out=out)
        case "tanh":
            # 2 sigmoid(2z) - 1: torch's sigmoid is five times as fast as its tanh, and 1e-7 does not matter here.
            torch.mul(z, 2.0, out=out).sigmoid_().mul_(2.0).sub_(1.0)
        case "leaky_relu":
            _aten.leaky_relu.out(z, 0.01, out=out)
        case "sigmoid":
            torch.sigmoid(z, out=out)
        case _:
            raise ValueError(f"activation: no batched training for {name!r}")


def _activate_backward(name: str, g: Tensor, z: Tensor, y: Tensor) -> None:
    """Multiply ``g`` by the activation's derivative, in place."""
    match name:
        case "relu":
            _aten.threshold_backward.grad_input(g, z, 0.0, grad_input=g)
        case "gelu":
            _aten.gelu_backward.grad_input(g, z, approximate="none", grad_input=g)
        case "silu":
            _aten.silu_backward.grad_input(g, z, grad_input=g)
        case "tanh":
            _aten.tanh_backward.grad_input(g, y, grad_input=g)
        case "leaky_relu":
            _aten.leaky_relu_backward.grad_input(g, z, 0.01, False, grad_input=g)
        case "sigmoid":
            _aten.sigmoid_backward.grad_input(g, y, grad_input=g)
        case _:
            raise ValueError(f"activation: no batched training for {name!r}")
