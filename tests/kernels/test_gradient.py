"""The differentiable metanetwork against torch's own gradients, what its bits must not depend on, and torch's checks
of an operator.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from metaedit_fast import _core  # noqa: E402
from metaedit_fast.graph import WeightGraphBatch  # noqa: E402
from metaedit_fast.kernels.reference import Topology, flat_edges  # noqa: E402
from metaedit_fast.metanet import differentiable  # noqa: E402
from metaedit_fast.metanet.apply import Heads  # noqa: E402
from metaedit_fast.metanet.config import MetanetConfig  # noqa: E402
from metaedit_fast.metanet.differentiable import differentiable_heads  # noqa: E402
from metaedit_fast.metanet.features import ModelFeatures, model_features  # noqa: E402
from metaedit_fast.metanet.metanetwork import MetanetInputs, Metanetwork  # noqa: E402
from metaedit_fast.models.mlp import MLP  # noqa: E402
from metaedit_fast.models.spec import ACTIVATIONS, LayerSpec, MLPSpec  # noqa: E402
from metaedit_fast.models.statistics import probe_statistics  # noqa: E402
from metaedit_fast.requirements.pruning import Pruning  # noqa: E402

N_INPUTS = 5
FIELDS = ("score", "relative", "additive", "node")
PROBE = np.random.default_rng(9).normal(size=(32, N_INPUTS)).astype(np.float32)
LIMIT = 1e-5  # norm-wise relative, of every parameter's gradient, against float64

SIZES = {
    f"{form} {d_e}/{d_v}": MetanetConfig(N_INPUTS, form=form, d_e=d_e, d_v=d_v, n_layers=2)
    for form in ("shipped", "official")
    for d_e in (8, 16, 32, 64, 128)
    for d_v in (32, 64, 128)
}
CONFIGS = {
    "shipped": MetanetConfig(N_INPUTS),
    "official": MetanetConfig(N_INPUTS, form="official", d_e=16, d_v=32, n_layers=3),
    "probe": MetanetConfig(N_INPUTS, probe=True, n_layers=2),
    "official, probe": MetanetConfig(N_INPUTS, form="official", d_e=11, d_v=23, n_layers=1, probe=True),
    "mask only": MetanetConfig(N_INPUTS, edits_parameters=False, n_layers=2),
    "official, mask only": MetanetConfig(N_INPUTS, form="official", edits_parameters=False, d_v=16, n_layers=2),
    "odd sizes": MetanetConfig(N_INPUTS, d_e=11, d_v=23, head_hidden=20, n_layers=2),
}
SHAPES = {
    "ragged": [
        MLPSpec.simple((N_INPUTS, 19, 2)),
        MLPSpec.simple((N_INPUTS, 2)),
        MLPSpec.simple((N_INPUTS, 7, 31, 2), "tanh", "layer", ((0, 1), (1, 2), (0, 2))),
    ],
    "one neuron": [MLPSpec.simple((N_INPUTS, 1, 1), skips=[(0, 1)], output="logits")],
    "wide": [MLPSpec.simple((N_INPUTS, 512, 33, 2))],
    "identities": [MLPSpec.simple((N_INPUTS, 32, 64, 64, 2), skips=[(0, 1), (1, 2), (1, 3), (0, 3)])],
}


@st.composite
def specs(draw: st.DrawFn) -> MLPSpec:
    widths = draw(st.lists(st.integers(1, 20), max_size=4))
    pairs = [(s, t) for t in range(1, len(widths) + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True)) if pairs else []
    hidden = tuple(LayerSpec(w, draw(st.sampled_from(ACTIVATIONS))) for w in widths)
    return MLPSpec(N_INPUTS, (*hidden, LayerSpec(draw(st.sampled_from([1, 2])))), tuple(skips))


@cache
def network(config: MetanetConfig) -> Metanetwork:
    """Away from its start, where heads and biases are small."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = Metanetwork(config)
        for p in net.parameters():
            p.add_(torch.randn(p.shape) * (0.15 * p.shape[-1] ** -0.5 if p.ndim == 2 else 0.05))
    return net


@dataclasses.dataclass
class Case:
    """A batch, and gradients of the heads to begin with."""

    net: Metanetwork
    mlps: list[MLP]
    features: list[ModelFeatures]
    condition: torch.Tensor
    upstream: list[torch.Tensor]

    @classmethod
    def of(cls, config: MetanetConfig, mlps: list[MLP], seed: int = 0) -> Case:
        rng = np.random.default_rng(seed)
        statistics = [probe_statistics(mlp, PROBE) if config.probe else None for mlp in mlps]
        features = [model_features(m, config, s) for m, s in zip(mlps, statistics, strict=True)]
        budgets = [Pruning().condition(sparsity) for sparsity in rng.uniform(0.1, 0.99, len(mlps))]
        condition = torch.from_numpy(np.array(budgets, np.float32).reshape(-1, 4))
        n_weights, n_nodes = sum(m.spec.n_weights for m in mlps), sum(sum(m.spec.widths) for m in mlps)
        shapes = [(n_weights,)] * 3 + [(n_nodes, 3)]
        upstream = [torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in shapes]
        return cls(network(config), mlps, features, condition, upstream)

    @classmethod
    def random(cls, config: MetanetConfig, models: list[MLPSpec], seed: int = 0) -> Case:
        rng = np.random.default_rng(seed)
        return cls.of(config, [MLP(spec, rng.normal(0, 0.7, spec.n_parameters)) for spec in models], seed)

    def heads(self, net: Metanetwork | None = None, isa: str | None = None, num_threads: int = 1) -> Heads:
        graph = WeightGraphBatch.from_mlps(self.mlps)
        return differentiable_heads(
            net or self.net, graph, self.features, self.condition, num_threads=num_threads, isa=isa
        )

    def loss(self, heads: Heads) -> torch.Tensor:
        parts = zip(FIELDS, self.upstream, strict=True)
        return sum((getattr(heads, name) * up.to(getattr(heads, name).dtype)).sum() for name, up in parts)

    def native(self, isa: str, num_threads: int = 1) -> dict[str, torch.Tensor]:
        found = torch.autograd.grad(self.loss(self.heads(None, isa, num_threads)), list(self.net.parameters()))
        return dict(zip(dict(self.net.named_parameters()), found, strict=True))

    def reference(self) -> dict[str, torch.Tensor]:
        """In float64; zeros for what has no part in the heads."""
        net = Metanetwork(self.net.config).double()
        net.load_state_dict(self.net.state_dict())
        inputs = MetanetInputs.build(self.mlps, self.features, self.condition)
        wide = {name: getattr(inputs, name).double() for name in ("edge", "node", "saliency", "condition")}
        loss = self.loss(net(dataclasses.replace(inputs, **wide)))
        found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
        names = [name for name, _ in net.named_parameters()]
        parts = zip(names, found, net.parameters(), strict=True)
        return {name: torch.zeros_like(p) if g is None else g for name, g, p in parts}


def smallest_lead(case: Case) -> float:
    """How far, at least, a node's largest message is ahead of the next, in any component, of the reference."""
    edges = WeightGraphBatch.from_mlps(case.mlps, order="shape").to_edge_index()
    leads = [np.inf]
    gather = Topology.gather

    def watch(topology: Topology, q: list[torch.Tensor], *, towards_target: bool, maximum: bool) -> torch.Tensor:
        nodes = edges[int(towards_target)]
        for column in flat_edges(q).detach().numpy().T if maximum else ():
            order = np.lexsort((column, nodes))
            ends = np.flatnonzero(np.diff(nodes[order], append=-1))
            ends = ends[(ends > 0) & (nodes[order][ends] == nodes[order][ends - 1])]
            leads.extend(column[order][ends] - column[order][ends - 1])
        return gather(topology, q, towards_target=towards_target, maximum=maximum)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Topology, "gather", watch)
        case.reference()
    return float(min(leads))


def expect_close(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    # A gradient that is nearly zero beside all others, as a sum of large terms, has the error of these terms.
    floor = 1e-3 * max(float(g.norm()) for g in expected.values())
    for name, exact in expected.items():
        assert torch.isfinite(got[name]).all(), name
        error = float((got[name].double() - exact).norm())
        assert error <= LIMIT * max(float(exact.norm()), floor), (
            f"{name}: {error / max(float(exact.norm()), 1e-30):.1e}"
        )


def check(case: Case, isa: str) -> None:
    expect_close(case.native(isa), case.reference())


@pytest.mark.parametrize("name", SIZES)
def test_gradients_of_every_size(isa: str, name: str) -> None:
    check(Case.random(SIZES[name], SHAPES["ragged"]), isa)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_every_shape(isa: str, name: str, shape: str) -> None:
    check(Case.random(CONFIGS[name], SHAPES[shape]), isa)


@settings(max_examples=15, deadline=None)
@given(models=st.lists(specs(), min_size=1, max_size=4), name=st.sampled_from(list(CONFIGS)), seed=st.integers(0, 99))
def test_gradients_of_ragged_batches(isa: str, models: list[MLPSpec], name: str, seed: int) -> None:
    case = Case.random(CONFIGS[name], models, seed)
    assume(smallest_lead(case) > 2e-6)  # where two messages are as large but for rounding, the gradient jumps
    check(case, isa)


@pytest.mark.parametrize("name", ["shipped", "official", "mask only"])
def test_heads_are_the_reference_s(isa: str, name: str) -> None:
    case = Case.random(CONFIGS[name], SHAPES["ragged"] + SHAPES["identities"])
    net = Metanetwork(case.net.config).double()
    net.load_state_dict(case.net.state_dict())
    inputs = MetanetInputs.build(case.mlps, case.features, case.condition)
    wide = {field: getattr(inputs, field).double() for field in ("edge", "node", "saliency", "condition")}
    with torch.no_grad():
        exact, found = net(dataclasses.replace(inputs, **wide)), case.heads(isa=isa)
    for field in FIELDS:
        mine, theirs = getattr(found, field).double(), getattr(exact, field)
        assert float((mine - theirs).norm()) <= 2e-6 * float(theirs.norm()), field


@pytest.mark.parametrize("name", ["shipped", "official"])
def test_an_empty_batch_has_no_gradient(isa: str, name: str) -> None:
    case = Case.random(CONFIGS[name], [])
    assert [tuple(getattr(case.heads(), field).shape) for field in FIELDS] == [(0,), (0,), (0,), (0, 3)]
    assert all(not gradient.any() for gradient in case.native(isa).values())


def test_tied_maxima_count_once(isa: str) -> None:
    """Neurons that are copies of each other send equal messages, and every share of a maximum's gradient among them
    gives the same gradient of the parameters, unless it is lost or counted twice."""
    spec = MLPSpec.simple((N_INPUTS, 6, 8, 2))
    mlp = MLP(spec, np.random.default_rng(0).normal(0, 0.7, spec.n_parameters))
    mlp.weight(0)[:, 3:] = mlp.weight(0)[:, :3]
    mlp.bias(0)[3:] = mlp.bias(0)[:3]
    mlp.weight(1)[3:] = mlp.weight(1)[:3]
    for layer in (1, 2):
        mlp.bias(layer)[...] = 0
    case = Case.of(CONFIGS["shipped"], [mlp])
    # The copies' own outputs must count alike, or the share would matter.
    for up, width in zip(case.upstream[:3], (1, 1, 1), strict=True):
        up[: spec.n_weights] = width
    case.upstream[3][...] = 1
    check(case, isa)


@settings(max_examples=15, deadline=None)
@given(
    models=st.lists(specs(), min_size=1, max_size=20), name=st.sampled_from(list(CONFIGS)), threads=st.integers(2, 9)
)
def test_no_bit_depends_on_the_number_of_threads(isa: str, models: list[MLPSpec], name: str, threads: int) -> None:
    case = Case.random(CONFIGS[name], models)
    alone, together = case.native(isa), case.native(isa, threads)
    for parameter, gradient in alone.items():
        assert gradient.numpy().tobytes() == together[parameter].numpy().tobytes(), parameter


@settings(max_examples=10, deadline=None)
@given(models=st.lists(specs(), min_size=2, max_size=6), name=st.sampled_from(list(CONFIGS)))
def test_heads_do_not_depend_on_the_neighbours(isa: str, models: list[MLPSpec], name: str) -> None:
    case = Case.random(CONFIGS[name], models)
    together, start = case.heads(isa=isa, num_threads=2).score.detach().numpy(), 0
    for m, mlp in enumerate(case.mlps):
        one = Case(case.net, [mlp], case.features[m : m + 1], case.condition[m : m + 1], [])
        score = one.heads(isa=isa).score.detach().numpy()
        assert score.tobytes() == together[start : start + len(score)].tobytes()
        start += len(score)


@pytest.mark.parametrize("name", ["shipped", "official"])
def test_the_gradient_is_the_slope_of_the_values(isa: str, name: str) -> None:
    """Without torch's autograd: the change of the loss along a direction."""
    case = Case.random(CONFIGS[name], SHAPES["ragged"])
    gradient = case.native(isa)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = {n: torch.randn(g.shape, generator=generator) * g.abs().mean() for n, g in gradient.items()}
        step = 1e-3 / float(torch.cat([d.flatten() for d in direction.values()]).abs().mean())
        losses = []
        for sign in (1, -1):
            net = Metanetwork(case.net.config)
            net.load_state_dict({n: p + sign * step * direction[n] for n, p in case.net.state_dict().items()})
            with torch.no_grad():
                heads = case.heads(net, isa)
            losses.append(float(case.loss(Heads(*(getattr(heads, field).double() for field in FIELDS)))))
        slope = sum(float((direction[n] * g).sum()) for n, g in gradient.items())
        scale = sum(float((direction[n] * g).norm()) for n, g in gradient.items())
        assert abs((losses[0] - losses[1]) / (2 * step) - slope) < 0.02 * scale


def arguments(case: Case) -> tuple[object, ...]:
    """Those of the operator."""
    kept: list[tuple[object, ...]] = []

    def keep(*given: object) -> list[torch.Tensor]:
        kept.append(given)
        return [torch.zeros(1)] * 6

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differentiable, "metanetwork", keep)
        case.heads()
    joined, *rest = kept[0]
    assert isinstance(joined, torch.Tensor)
    return joined.detach().requires_grad_(), *rest


@pytest.mark.parametrize("name", ["shipped", "official"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_s_own_checks_of_the_operator(name: str) -> None:
    case = Case.random(CONFIGS[name], SHAPES["ragged"][:2])
    torch.library.opcheck(torch.ops.metaedit.metanetwork.default, arguments(case))


@pytest.mark.parametrize(
    ("backend", "name"), [("aot_eager", "shipped"), ("aot_eager", "official"), ("inductor", "shipped")]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_torch_compile_keeps_it_in_one_graph(backend: str, name: str) -> None:
    case = Case.random(CONFIGS[name], SHAPES["ragged"][:2])
    given = arguments(case)

    def loss(parameters: torch.Tensor) -> torch.Tensor:
        score, relative, additive, node, _, _ = torch.ops.metaedit.metanetwork(parameters, *given[1:])
        return case.loss(Heads(score, relative, additive, node))

    gradients = []
    for function in (loss, torch.compile(loss, backend=backend, fullgraph=True)):
        parameters = given[0].detach().clone().requires_grad_()
        gradients.append(torch.autograd.grad(function(parameters), parameters)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_what_the_heads_do_not_use_has_the_gradient_zero() -> None:
    case = Case.random(CONFIGS["shipped"], SHAPES["ragged"][:1])
    found = torch.autograd.grad(case.heads().score.sum(), list(case.net.parameters()))
    zero = {name for (name, _), g in zip(case.net.named_parameters(), found, strict=True) if not g.any()}
    assert zero == {name for name, _ in case.net.named_parameters() if name.startswith(("edit_head", "node_head"))} | {
        "skip_edge"
    }


class TestWrongInputs:
    def test_sizes(self) -> None:
        case = Case.random(MetanetConfig(N_INPUTS, d_e=129, d_v=8, n_layers=1), SHAPES["ragged"][:1])
        assert not differentiable.fits(case.net.config)
        with pytest.raises(ValueError, match="d_e: expected at most 128, got 129"):
            case.heads()

    def test_features(self) -> None:
        case = Case.random(CONFIGS["shipped"], SHAPES["ragged"])
        case.features.pop()
        with pytest.raises(ValueError, match="features: expected those of 3 models, got 2"):
            case.heads()

    def test_dtype(self) -> None:
        case = Case.random(CONFIGS["shipped"], SHAPES["ragged"][:1])
        with pytest.raises(TypeError, match="condition: expected a float32 array"):
            dataclasses.replace(case, condition=case.condition.double()).heads()

    def test_core(self) -> None:
        case = Case.random(CONFIGS["shipped"], SHAPES["ragged"][:1])
        joined, batch, _, sizes, *_ = arguments(case)
        net = differentiable._network(sizes)
        values, arrays = joined.detach().numpy(), tuple(x.numpy() for x in batch)
        *heads, edges, nodes = net.forward(values, arrays, num_threads=1)
        for tape, wrong in (("edge_tape", (edges[1:], nodes)), ("node_tape", (edges, nodes[:-1]))):
            with pytest.raises(ValueError, match=f"{tape}: expected a float32 array of shape"):
                net.backward(values, arrays, *wrong, tuple(heads), num_threads=1)
        with pytest.raises(ValueError, match="gradients, relative: expected a float32 array of shape"):
            net.backward(values, arrays, edges, nodes, (heads[0], heads[1][1:], *heads[2:]), num_threads=1)
        with pytest.raises(ValueError, match="parameters: expected a float32 array of shape"):
            net.forward(values[1:], arrays, num_threads=1)
        with pytest.raises(TypeError, match="batch: expected 8 arrays, got 7"):
            net.forward(values, arrays[1:], num_threads=1)
        with pytest.raises(ValueError, match="num_threads: expected at least 1, got 0"):
            net.forward(values, arrays, num_threads=0)
        with pytest.raises(ValueError, match="form: expected 'shipped' or 'official', got 'round'"):
            _core.DifferentiableMetanet(
                form="round", d_e=4, d_v=4, n_layers=1, head_hidden=4, n_edge_features=5, n_node_features=5,
                n_node_types=3, edits_parameters=True, score_gain=1.0,
            )  # fmt: skip
