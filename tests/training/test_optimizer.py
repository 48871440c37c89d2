"""AdamW over one vector does what torch's AdamW does with a list of parameters."""

from __future__ import annotations

import copy

import torch
from torch import nn

from metaedit_fast.training.optimizer import FlatAdamW


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2)).double()


def run(net: nn.Module, step: int) -> None:
    x = torch.arange(7).roll(step)
    (net(x) * torch.arange(14.0).reshape(7, 2)).square().mean().backward()


def test_the_steps_are_those_of_torch() -> None:
    plain, flat = network(), network()
    decayed = [plain[1].weight, plain[3].weight]
    free = [p for p in plain.parameters() if all(p is not q for q in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    optimizer = FlatAdamW(flat, betas=(0.9, 0.99), weight_decay=0.1, clip=1.0, undecayed=["0.weight"])
    for step in range(5):
        for group in adamw.param_groups:
            group["lr"] = 0.01 * (step + 1)
        adamw.zero_grad()
        run(plain, step)
        assert nn.utils.clip_grad_norm_(plain.parameters(), 1.0) > 1.0
        adamw.step()
        run(flat, step)
        optimizer.step(0.01 * (step + 1))
    for (name, wanted), got in zip(plain.named_parameters(), flat.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14, msg=name)
        assert got.grad is None


def test_it_goes_on_from_its_state() -> None:
    def optimizer_of(net: nn.Module) -> FlatAdamW:
        return FlatAdamW(net, betas=(0.9, 0.99), weight_decay=0.1, clip=1.0)

    whole = network()
    optimizer = optimizer_of(whole)
    for step in range(4):
        if step == 2:
            kept, state = copy.deepcopy(whole.state_dict()), copy.deepcopy(optimizer.state_dict())
        run(whole, step)
        optimizer.step(0.01)
    resumed = network()
    other = optimizer_of(resumed)
    resumed.load_state_dict(kept)
    other.load_state_dict(state)
    for step in (2, 3):
        run(resumed, step)
        other.step(0.01)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_parameter_without_a_gradient_stays() -> None:
    net = network()
    net.extra = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = FlatAdamW(net, betas=(0.9, 0.99), weight_decay=0.1, clip=1.0)
    run(net, 0)
    optimizer.step(0.01)
    assert torch.equal(net.extra.detach(), torch.ones(3, dtype=torch.float64))
