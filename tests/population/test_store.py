"""The store: exact round trips, and refusal of whatever is not a population."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metaedit_fast.errors import InvalidPopulationError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import LayerSpec, MLPSpec
from metaedit_fast.population import Population, PopulationRecord, store

ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "leaky_relu", "sigmoid")


@st.composite
def specs(draw: st.DrawFn) -> MLPSpec:
    widths = draw(st.lists(st.integers(1, 5), min_size=0, max_size=3))
    layers = [
        LayerSpec(w, draw(st.sampled_from(ACTIVATIONS)), norm=draw(st.sampled_from(("none", "layer")))) for w in widths
    ]
    pairs = [(s, t) for t in range(1, len(widths) + 1) for s in range(t)]
    skips = draw(st.lists(st.sampled_from(pairs), max_size=3)) if pairs else []
    return MLPSpec(draw(st.integers(1, 4)), (*layers, LayerSpec(2)), tuple(skips))


@st.composite
def records(draw: st.DrawFn, run: int = 0) -> PopulationRecord:
    spec = draw(specs())
    bits = hnp.arrays(np.uint32, spec.n_parameters)
    scale = draw(st.none() | hnp.arrays(np.float32, spec.n_inputs))
    number = st.floats(allow_nan=True, allow_infinity=True)
    return PopulationRecord(
        # Any bits at all: infinities, signed zeros and NaNs with payloads must survive.
        mlp=MLP(spec, draw(bits).view(np.float32), scale, scale),
        run=run,
        split=draw(st.sampled_from(("train", "val", "test"))),
        checkpoint=draw(st.integers(0, 127)),
        epoch=draw(st.integers(0, 2**31 - 1)),
        norm=draw(st.sampled_from(("none", "batch", "layer"))),
        dropout=draw(number),
        batch_size=draw(st.integers(0, 1000)),
        learning_rate=draw(number),
        weight_decay=draw(number),
        val_accuracy=draw(number),
        val_loss=draw(number),
    )


def same(a: PopulationRecord, b: PopulationRecord) -> bool:
    return a.mlp.content_hash() == b.mlp.content_hash() and repr(a.metadata()) == repr(b.metadata())


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), count=st.integers(0, 5), rows=st.integers(1, 3))
def test_round_trip_is_exact(tmp_path: Path, data: st.DataObject, count: int, rows: int) -> None:
    population = Population([data.draw(records(run)) for run in range(count)], dataset="d", info={"a": [1, "ü"]})
    folder = tmp_path / "p"
    shutil.rmtree(folder, ignore_errors=True)
    population.save(folder, rows_per_shard=rows)
    found = Population.load(folder)
    assert (found.dataset, found.info, len(found)) == ("d", {"a": [1, "ü"]}, count)
    assert all(same(a, b) for a, b in zip(population, found, strict=True))
    assert found.content_hash() == population.content_hash()


def make(count: int = 6) -> Population:
    rng = np.random.default_rng(0)
    spec = MLPSpec.simple((3, 4, 2), "relu", "layer")
    return Population(
        [
            PopulationRecord(
                mlp=MLP(spec, rng.normal(size=spec.n_parameters)),
                run=i // 3,
                checkpoint=i % 3,
                epoch=i % 3 + 1,
                split=("train", "test")[i // 3 % 2],
            )
            for i in range(count)
        ],
        dataset="d",
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make().save(tmp_path / "p")
    return tmp_path / "p"


def test_indexing_and_selection() -> None:
    population = make()
    assert isinstance(population[1], PopulationRecord)
    assert len(population[1:3]) == 2
    assert [r.run for r in population.select(split="test")] == [1, 1, 1]
    assert [r.run for r in population.select(checkpoint=2)] == [0, 1]
    assert len(population.select(runs=[0], checkpoint=0)) == 1
    assert population.mlps[2] is population[2].mlp
    assert repr(population) == "Population(6 models of 2 runs)"
    assert population[1:].content_hash() != population.content_hash()


def test_diverged_models_are_kept_and_left_out_by_default() -> None:
    good = make(3)
    bad = dataclasses.replace(good[1], mlp=good[1].mlp.replace(np.full_like(good[1].mlp.theta, math.nan)))
    population = Population([good[0], bad, good[2]])
    assert len(population.select()) == 2
    assert len(population.select(finite=None)) == 3
    assert population.select(finite=False)[0] is bad


def test_from_mlps() -> None:
    population = Population.from_mlps(make().mlps, split="test")
    assert [r.run for r in population] == list(range(6))
    assert len(population.select(split="test")) == 6


def test_saving_never_overwrites(saved: Path) -> None:
    with pytest.raises(FileExistsError, match="new or empty folder"):
        make().save(saved)


def test_loaded_models_may_be_written_to(saved: Path) -> None:
    model = Population.load(saved)[0].mlp
    model.theta[0] = 7.0
    assert Population.load(saved)[0].mlp.theta[0] != 7.0


def test_shard_metadata(saved: Path) -> None:
    metadata = pq.read_schema(saved / "shard-00000.parquet").metadata
    assert metadata[b"metaedit_population"] == b"1"
    assert metadata[b"dataset"] == b"d"
    assert not [p for p in saved.iterdir() if p.name.startswith(".")]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        store.write_shard(tmp_path / "a.parquet", list(make()), dataset="d")
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), cut=st.booleans())
def test_damaged_shards_are_refused_or_unchanged(saved: Path, place: float, value: int, cut: bool) -> None:
    """A flipped byte may hit one that no reader looks at; it must never change a model or escape as another error."""
    path = saved / "shard-00000.parquet"
    good = path.read_bytes()
    raw = bytearray(good)
    index = int(place * len(raw))
    raw[index] ^= value
    path.write_bytes(bytes(good[:index]) if cut else bytes(raw))
    try:
        try:
            found = Population.load(saved)
        except InvalidPopulationError:
            return
        assert not cut
        assert [r.mlp.theta.tobytes() for r in found] == [r.mlp.theta.tobytes() for r in make()]
    finally:
        path.write_bytes(good)


def rewrite(saved: Path, **columns: list[object]) -> None:
    path = saved / "shard-00000.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    pq.write_table(table, path)


def with_layer(**changes: object) -> str:
    spec = json.loads(make()[0].mlp.spec.to_json())
    spec["layers"][0].update(changes)
    return json.dumps(spec)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"weights": [b"1234"] * 6}, "row 0: expected weights of 136 bytes, got 4"),
        ({"input_scale": [None] * 5 + [b"1"]}, "row 5: expected input_scale of 12 bytes, got 1"),
        ({"finite": [False] * 6}, "row 0: expected the flag finite to be True"),
        ({"split": ["train"] * 5 + ["hidden"]}, "row 5: split: expected one of"),
        ({"split": ["train", "test"] * 3}, "all checkpoints of run 0 in train, got 'test'"),
        ({"norm": ["group"] * 6}, "norm: expected one of"),
        ({"run": [-1] * 6}, "run: expected at least 0, got -1"),
        ({"spec": ["{}"] * 6}, "not the JSON of an MLPSpec"),
        ({"spec": ["[" * 100_000] * 6}, "shard-00000"),
        ({"spec": [with_layer(width=10**12)] * 6}, "at most 50000000 parameters"),
        ({"spec": [with_layer(width="4")] * 6}, "width: expected a positive int"),
        ({"spec": [with_layer(eps="x")] * 6}, "eps: expected a finite number"),
        ({"spec": [with_layer(eps=math.inf)] * 6}, "eps: expected a finite number"),
        ({"spec": [with_layer(code="import os")] * 6}, "not the JSON of an MLPSpec"),
    ],
)
def test_wrong_cells_are_named(saved: Path, columns: dict[str, list[object]], message: str) -> None:
    rewrite(saved, **columns)
    with pytest.raises(InvalidPopulationError, match=message):
        Population.load(saved)


def test_other_parquet_files_are_refused(saved: Path) -> None:
    path = saved / "shard-00000.parquet"
    table = pq.read_table(path)
    for changed, message in (
        (table.replace_schema_metadata({}), "schema version 1, got 'none'"),
        (table.replace_schema_metadata({**table.schema.metadata, b"dataset": b"e"}), "models of dataset d, got 'e'"),
        (table.drop_columns(["norm"]), "the columns"),
        (table.append_column("more", pa.array([1] * 6)), "the columns"),
    ):
        pq.write_table(changed, path)
        with pytest.raises(InvalidPopulationError, match=message):
            Population.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 1, got 2"),
        ({"shards": ["../shard-00000.parquet"]}, "a shard's file name"),
        ({"shards": ["/etc/passwd"]}, "a shard's file name"),
        ({"shards": ["shard-00000.parquet"] * 2}, "every shard once"),
        ({"shards": ["missing.parquet"]}, "it is not there"),
        ({"shards": 3}, "at most 100000 shards"),
        ({"info": []}, "info as an object"),
        ({"complete": False}, "unfinished build"),
    ],
)
def test_bad_manifests_are_refused(saved: Path, change: dict[str, object], message: str) -> None:
    path = saved / store.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InvalidPopulationError, match=message):
        Population.load(saved)


def test_manifests_that_are_none(saved: Path, tmp_path: Path) -> None:
    for text in ("", "[]", "{}", "nonsense", "[" * 100_000):
        (saved / store.MANIFEST).write_text(text)
        with pytest.raises(InvalidPopulationError, match="not the manifest"):
            Population.load(saved)
    with pytest.raises(FileNotFoundError, match="no population here"):
        Population.load(tmp_path / "elsewhere")


def test_claimed_sizes_are_capped(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_SHARD_BYTES", 100)
    with pytest.raises(InvalidPopulationError, match="at most 100 bytes"):
        Population.load(saved)


def test_records_check_their_fields() -> None:
    with pytest.raises(ValueError, match="split: expected one of"):
        dataclasses.replace(make()[0], split="holdout")
