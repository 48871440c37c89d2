"""The stack's written-out passes against autograd, and a stored model against the stack."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metaedit_fast.models.mlp import MLP
from metaedit_fast.population.network import Stack, stacking_order
from metaedit_fast.population.sampling import Ranges, RunSpec, sample_runs

ACTIVATIONS = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "leaky_relu": lambda z: functional.leaky_relu(z, 0.01),
    "sigmoid": torch.sigmoid,
}
ROWS = 32


def make_stack(depth: int) -> Stack:
    ranges = Ranges(depths=(depth,), widths=(4, 8), runs_per_shape=24)
    stack = Stack(stacking_order(sample_runs(24, seed=depth, n_inputs=5, ranges=ranges)))
    assert {r.norm for r in stack.runs} == {"none", "batch", "layer"}
    generator = torch.Generator().manual_seed(depth)
    # Norms at their initial 1 and 0 would hide mistakes.
    for flat in (*stack.scale, *stack.shift):
        flat.add_(0.3 * torch.randn(flat.shape, generator=generator))
    for mean, var in zip(stack.running_mean, stack.running_var, strict=True):
        mean.copy_(torch.randn(mean.shape, generator=generator))
        var.copy_(torch.rand(var.shape, generator=generator) + 0.5)
    return stack


def plain_forward(run: RunSpec, values: dict[str, list[Tensor]], x: Tensor, masks: list[Tensor]) -> Tensor:
    """One run in training mode, as the layer's definition says it."""
    outputs = [x]
    for i, layer in enumerate(run.spec.layers[:-1]):
        z = outputs[-1] @ values["weight"][i] + values["bias"][i]
        if run.norm == "batch":
            z = functional.batch_norm(z, None, None, values["scale"][i], values["shift"][i], training=True)
        if run.norm == "layer":
            z = functional.layer_norm(z, [layer.width], values["scale"][i], values["shift"][i])
        for source in run.spec.skips_into(i + 1):
            h = outputs[source]
            z = z + functional.pad(h, (0, z.shape[1] - h.shape[1]))
        outputs.append(ACTIVATIONS[layer.activation](z) * masks[i])
    return outputs[-1] @ values["weight"][-1].T + values["bias"][-1]


def parameters_of(stack: Stack, flat: Tensor, k: int) -> dict[str, list[Tensor]]:
    values: dict[str, list[Tensor]] = {"weight": [], "bias": [], "scale": [], "shift": []}
    start = 0
    for kind, (a, b, c) in stack.shapes:
        if k < a:
            value = flat[start : start + a * b * c].view(a, b, c)[k]
            values[kind].append(value if kind == "weight" else value.flatten())
        start += a * b * c
    return values


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_passes_equal_autograd(depth: int) -> None:
    stack = make_stack(depth)
    generator = torch.Generator().manual_seed(0)
    k = len(stack.runs)
    x = torch.randn(k, ROWS, 5, generator=generator)
    target = torch.randint(0, 2, (k, ROWS), generator=generator)
    masks = [(torch.rand(k, ROWS, w, generator=generator) > 0.3) / 0.7 for w in stack.widths[1:-1]]
    flat = stack.parameters.clone().requires_grad_()
    logits = torch.stack(
        [
            plain_forward(run, parameters_of(stack, flat, i), x[i], [m[i] for m in masks])
            for i, run in enumerate(stack.runs)
        ]
    )
    (functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum") / ROWS).backward()

    with torch.no_grad():
        found = stack.forward(x, masks, training=True)
        torch.testing.assert_close(found.transpose(1, 2), logits, rtol=1e-4, atol=1e-5)
        one_hot = functional.one_hot(target, 2).transpose(1, 2)
        stack.gradients.fill_(float("nan"))
        stack.backward((torch.softmax(found, 1) - one_hot) / ROWS)
    torch.testing.assert_close(stack.gradients, flat.grad, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_stored_model_equals_the_stack_in_evaluation(depth: int) -> None:
    stack = make_stack(depth)
    x = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
    with torch.no_grad():
        logits = stack.forward(torch.from_numpy(x).expand(len(stack.runs), -1, -1)).transpose(1, 2).numpy()
    for k, run in enumerate(stack.runs):
        np.testing.assert_allclose(MLP(run.spec, stack.theta(k)).forward(x), logits[k], rtol=1e-5, atol=1e-5)


def test_expand_puts_each_runs_value_beside_its_parameters() -> None:
    stack = make_stack(2)
    values = [float(k + 1) for k in range(len(stack.runs))]
    flat = stack.expand(values, only=("bias", "scale"))
    for k in range(len(values)):
        mine = parameters_of(stack, flat, k)
        assert all((v == values[k]).all() for v in (*mine["bias"], *mine["scale"]))
        assert all((v == 0).all() for v in (*mine["weight"], *mine["shift"]))
