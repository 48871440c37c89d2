"""The edit of a model depends on nothing but the model: not on neighbours, their order, or the number of threads."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metaedit_fast as mf
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.requirements.masks import kept_count

N_INPUTS = 5
ROWS = np.random.default_rng(7).normal(size=(60, N_INPUTS)).astype(np.float32)
property_test = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
sparsities = st.one_of(st.sampled_from([0.0, 0.5, 0.9]), st.floats(0.0, 0.98))


@st.composite
def mlps(draw):
    """A small network of any architecture that the tiny editors take."""
    depth = draw(st.integers(0, 3))
    hidden = [
        LayerSpec(
            draw(st.integers(1, 9)),
            draw(st.sampled_from(["relu", "gelu", "silu", "tanh", "leaky_relu", "sigmoid"])),
            norm=draw(st.sampled_from(["none", "layer"])),
        )
        for _ in range(depth)
    ]
    pairs = [(s, t) for t in range(1, depth + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), max_size=2, unique=True)) if pairs else []
    output = draw(st.sampled_from(["logits", "softmax", "sigmoid"]))
    last = LayerSpec(1 if output == "sigmoid" else 2)
    spec = MLPSpec(N_INPUTS, (*hidden, last), tuple(skips), output)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return mf.MLP(spec, rng.normal(0, draw(st.sampled_from([0.1, 1.0, 5.0])), spec.n_parameters))


def bits(result):
    return [model.theta.tobytes() for model in result.models]


def alone(edit, models):
    return [bits(edit([model]))[0] for model in models]


@property_test
@given(st.lists(mlps(), min_size=1, max_size=6), sparsities, st.randoms(use_true_random=False), st.integers(1, 4))
def test_neighbours_order_and_threads_do_not_matter(tiny_editor, models, sparsity, random, threads):
    edit = functools.partial(mf.edit, editor=tiny_editor, strength=sparsity)
    expected = alone(edit, models)
    assert bits(edit(models, num_threads=threads)) == expected
    order = list(range(len(models)))
    random.shuffle(order)
    shuffled = edit([models[i] for i in order], num_threads=threads)
    assert bits(shuffled) == [expected[i] for i in order]
    population = edit(mf.Population.from_mlps(models), num_threads=threads).population
    assert [record.mlp.theta.tobytes() for record in population] == expected


@property_test
@given(st.lists(mlps(), min_size=2, max_size=4), sparsities, st.integers(0, 5), st.integers(2, 4))
def test_nor_do_they_with_probe_refinement_and_metrics(tiny_probe_editor, models, sparsity, refine, threads):
    edit = functools.partial(
        mf.edit, editor=tiny_probe_editor, strength=sparsity, data=ROWS, refine=refine, probe_rows=20
    )
    expected = [edit(model) for model in models]
    together = edit(models[::-1], num_threads=threads)
    assert bits(together)[::-1] == [bits(result)[0] for result in expected]
    assert [record.metrics for record in together][::-1] == [result[0].metrics for result in expected]


@property_test
@given(st.lists(mlps(), min_size=1, max_size=4), sparsities)
def test_a_bad_neighbour_does_not_matter(tiny_editor, models, sparsity):
    edit = functools.partial(mf.edit, editor=tiny_editor, strength=sparsity)
    broken = models[0].replace(np.full_like(models[0].theta, np.nan))
    result = edit([broken, *models, 7])
    assert [record.model.theta.tobytes() for record in result[1:-1]] == alone(edit, models)
    assert [result[0].status, result[-1].status] == ["refused", "refused"]


@property_test
@given(mlps(), sparsities)
def test_exact_sparsity_inputs_untouched_in_place_alike(tiny_editor, mlp, sparsity):
    before = mlp.content_hash()
    edited = mf.edit(mlp, tiny_editor, strength=sparsity).model
    assert mlp.content_hash() == before
    zeros = mlp.spec.n_weights - np.count_nonzero(edited.theta[: mlp.spec.n_weights])
    assert zeros >= mlp.spec.n_weights - kept_count(mlp.spec.n_weights, sparsity)
    if sparsity == 0:
        assert edited.theta.tobytes() == mlp.theta.tobytes()
    mf.edit_(mlp, tiny_editor, strength=sparsity)
    assert mlp.theta.tobytes() == edited.theta.tobytes()


@property_test
@given(mlps(), st.floats(0.05, 0.95))
def test_the_edit_is_a_function(tiny_editor, mlp, sparsity):
    first, second = (mf.edit(mlp, tiny_editor, target={"sparsity": sparsity}) for _ in range(2))
    assert bits(first) == bits(second)
    copied = mf.MLP(mlp.spec, mlp.theta.copy())
    assert bits(mf.edit(copied, tiny_editor, target={"sparsity": sparsity})) == bits(first)
