"""``edit_stream``: what ``edit`` gives, as it comes, in the memory of a few models."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.editing import pipeline
from metaedit_fast.editing.plan import EditOptions, make_plan

SPARSITY = {"sparsity": 0.75}
ROWS = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
# How much peak memory may grow behind the first models; the others hold thirty times that.
MAX_GROWTH_MB = 4


def told(record):
    return (record.index, record.name, record.status, record.reason, record.notes, record.metrics, record.kind)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_records_are_those_of_edit(tmp_path, tiny_probe_editor, small_mlps, batch):
    mf.write_model(small_mlps[1], tmp_path / "net.onnx")
    models = [small_mlps[0], tmp_path / "net.onnx", "gone.onnx", *small_mlps[2:]]
    options = {"target": SPARSITY, "data": mf.Table(ROWS, np.arange(40) % 2), "refine": 2, "probe_rows": 10}
    whole = mf.edit(models, tiny_probe_editor, **options)
    stream = list(mf.edit_stream(iter(models), tiny_probe_editor, batch=batch, **options))
    assert list(map(told, stream)) == list(map(told, whole))
    for a, b in zip(stream, whole, strict=True):
        if a.status == "edited":
            assert mf.read_model(a.model).theta.tobytes() == mf.read_model(b.model).theta.tobytes()


def test_it_reads_no_more_than_a_batch_ahead(tiny_editor, small_mlps):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield small_mlps[i % 5]

    stream = mf.edit_stream(endless(), tiny_editor, target=SPARSITY, batch=3)
    assert taken == []
    first = [next(stream) for _ in range(4)]
    assert taken == list(range(6))
    assert [record.index for record in first] == [0, 1, 2, 3]
    stream.close()


def test_large_models_come_fewer_at_a_time(monkeypatch, tiny_editor, small_mlps):
    monkeypatch.setattr(pipeline, "_CHUNK_PARAMETERS", small_mlps[0].spec.n_parameters + 1)
    models = iter([small_mlps[0]] * 9)
    next(mf.edit_stream(models, tiny_editor, target=SPARSITY, num_threads=1))
    assert len(list(models)) == 7


def test_a_population_and_its_records(tiny_editor, small_mlps):
    population = mf.Population.from_mlps(small_mlps)
    expected = list(map(told, mf.edit(population, tiny_editor, target=SPARSITY)))
    for models in (population, iter(population)):
        found = list(mf.edit_stream(models, tiny_editor, target=SPARSITY))
        assert list(map(told, found)) == expected
        assert found[3].origin is population[3]


def test_wrong_arguments_are_told_at_once(tiny_editor, tiny_probe_editor, small_mlps):
    for editor, options, message in (
        (tiny_editor, {}, "exactly one of them"),
        (tiny_editor, {"target": SPARSITY, "batch": 0}, "batch: expected an integer of at least 1, got 0"),
        (tiny_probe_editor, {"target": SPARSITY}, "data: this editor reads a probe"),
    ):
        with pytest.raises(ValueError, match=message):
            mf.edit_stream(iter(small_mlps), editor, **options)
    with pytest.raises(ValueError, match="models: expected one model or a list"):
        mf.edit_stream({}, tiny_editor, target=SPARSITY)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sparsity'"):
        mf.edit_stream(iter(small_mlps), tiny_editor, sparsity=0.5)


def test_raise_comes_behind_those_before(tiny_editor, small_mlps):
    stream = mf.edit_stream(iter([*small_mlps[:2], 7]), tiny_editor, target=SPARSITY, on_error="raise")
    assert [next(stream).status, next(stream).status] == ["edited", "edited"]
    with pytest.raises(mf.UnsupportedModelError, match=r"models\[2\].*builtins\.int"):
        next(stream)


@pytest.mark.parametrize(
    ("function", "own"), [(mf.edit, "progress"), (mf.edit_, "progress"), (mf.edit_stream, "batch")]
)
def test_the_three_share_their_options(function, own):
    """``help`` spells them out, with the defaults that hold."""
    options = {n: p for n, p in inspect.signature(make_plan).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert set(options) == EditOptions.__optional_keys__
    assert list(inspect.signature(function).parameters) == ["models", "editor", *options, own]
    for name, option in options.items():
        assert inspect.signature(function).parameters[name].default == option.default


STREAM = """
import resource, sys
import numpy as np
import metaedit_fast as mf

def models(count):
    rng = np.random.default_rng(0)
    specs = [mf.MLPSpec.simple((5, width, 16, 2)) for width in range(64, 96)]
    for i in range(count):
        spec = specs[i % len(specs)]
        yield mf.MLP(spec, rng.normal(0, 0.5, spec.n_parameters).astype(np.float32))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

warm_up, count = int(sys.argv[2]), int(sys.argv[3])
edited = size = 0
for record in mf.edit_stream(models(count), sys.argv[1], target={"sparsity": 0.8}, batch=64, num_threads=1):
    edited += record.status == "edited"
    size += 0 if record.index < warm_up else record.model.theta.nbytes
    if record.index == warm_up:
        before = peak()
print(edited, (size / 2**20), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_memory_stays_that_of_a_batch(tmp_path, tiny_editor):
    tiny_editor.save(tmp_path / "editor.onnx")
    done = subprocess.run(
        [sys.executable, "-c", STREAM, tmp_path / "editor.onnx", "2000", "20000"],
        capture_output=True,
        text=True,
        check=True,
    )
    edited, streamed, growth = map(float, done.stdout.split())
    assert edited == 20000
    assert streamed > 30 * MAX_GROWTH_MB
    assert growth < MAX_GROWTH_MB
