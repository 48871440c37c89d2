"""The sampler: ranges, order of widths, skips, reproducibility."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.population.sampling import (
    DEFAULT_RANGES,
    SPLITS,
    TRAINED_NORMS,
    Ranges,
    checkpoint_epochs,
    sample_run,
    sample_runs,
    stream,
)


@given(run=st.integers(0, 10**6), seed=st.integers(0, 2**40))
def test_every_draw_is_within_the_ranges(run: int, seed: int) -> None:
    drawn = sample_run(run, seed=seed, n_inputs=14)
    ranges, spec = DEFAULT_RANGES, drawn.spec
    hidden = spec.widths[1:-1]
    assert len(hidden) in ranges.depths
    assert set(hidden) <= set(ranges.widths)
    assert list(hidden) == sorted(hidden)
    assert (spec.n_inputs, spec.n_outputs, spec.output) == (14, 2, "logits")
    assert len({layer.activation for layer in spec.layers[:-1]}) == 1
    assert spec.layers[0].activation in ranges.activations
    assert {layer.norm for layer in spec.layers[:-1]} == {"layer" if drawn.norm == "layer" else "none"}
    assert drawn.batch_size in ranges.batch_sizes
    assert drawn.dropout in ranges.dropouts
    assert ranges.learning_rate[0] <= drawn.learning_rate <= ranges.learning_rate[1]
    assert ranges.weight_decay[0] <= drawn.weight_decay <= ranges.weight_decay[1]
    for target in range(1, len(hidden) + 1):
        sources = spec.skips_into(target)
        assert len(sources) <= 2
        assert all(1 <= s < target for s in sources)
    assert MLPSpec.from_json(spec.to_json()) == spec


def test_a_run_does_not_depend_on_how_many_are_drawn() -> None:
    many = sample_runs(50, seed=3, n_inputs=14)
    assert many[:7] == sample_runs(7, seed=3, n_inputs=14)
    assert many[33] == sample_run(33, seed=3, n_inputs=14)
    assert many != sample_runs(50, seed=4, n_inputs=14)


def test_runs_of_a_group_share_their_shape_and_nothing_else() -> None:
    runs = sample_runs(16, seed=0, n_inputs=14)
    for group in (runs[:8], runs[8:]):
        assert len({(r.spec.widths, r.batch_size) for r in group}) == 1
        assert len({r.learning_rate for r in group}) == 8


def test_all_options_occur_about_equally_often() -> None:
    runs = sample_runs(4000, seed=1, n_inputs=14)
    for values, options in (
        ([r.norm for r in runs], TRAINED_NORMS),
        ([r.spec.layers[0].activation for r in runs], DEFAULT_RANGES.activations),
        ([r.dropout for r in runs], DEFAULT_RANGES.dropouts),
        ([len(r.spec.layers) - 1 for r in runs], DEFAULT_RANGES.depths),
        ([r.batch_size for r in runs], DEFAULT_RANGES.batch_sizes),
    ):
        counts = Counter(values)
        assert set(counts) == set(options)
        assert max(counts.values()) < 1.4 * min(counts.values())


@pytest.mark.parametrize("prefix", [20, 60, 400])
def test_any_twenty_runs_are_divided_75_10_15(prefix: int) -> None:
    counts = Counter(r.split for r in sample_runs(prefix, seed=2, n_inputs=14))
    assert [counts[name] * 20 // prefix for name in SPLITS] == [15, 2, 3]


def test_streams_differ_by_run_and_purpose() -> None:
    a, b = sample_runs(2, seed=0, n_inputs=4)
    words = {stream(run, purpose).bit_generator.random_raw() for run in (a, b) for purpose in ("init", "order")}
    assert len(words) == 4
    assert stream(a, "init").random() == stream(a, "init").random()


def test_checkpoints_are_early_middle_and_last() -> None:
    assert checkpoint_epochs(60) == (8, 24, 60)
    assert checkpoint_epochs(15) == (2, 6, 15)
    assert checkpoint_epochs(1) == (1,)


@pytest.mark.parametrize("options", [{"split_of_20": (15, 2, 2)}, {"runs_per_shape": 0}, {"norms": ("none", "group")}])
def test_bad_ranges(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        Ranges(**options)
