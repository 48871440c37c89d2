"""Building: resumable, extendable, the same whatever the number of threads."""

import dataclasses
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metaedit_fast.datasets import Dataset
from metaedit_fast.errors import InvalidPopulationError
from metaedit_fast.population import Population, Ranges, build, build_population
from metaedit_fast.population.store import MANIFEST

RANGES = Ranges(depths=(1, 2), widths=(4, 8), batch_sizes=(64,), runs_per_shape=4)


def make(toy: Dataset, out: Path, n_runs: int = 10, **options: object) -> Population:
    return build_population(toy, n_runs, seed=1, out_dir=out, epochs=3, ranges=RANGES, **options)


def test_what_is_built(toy: Dataset, tmp_path: Path) -> None:
    population = make(toy, tmp_path)
    assert [(r.run, r.checkpoint, r.epoch) for r in population[:2]] == [(0, 0, 1), (0, 1, 3)]
    assert len(population) == 20
    assert population.dataset == toy.fingerprint
    assert population.info["checkpoint_epochs"] == sorted({r.epoch for r in population})
    assert population.info["attribution"] == "made up"
    assert {len({r.split for r in population.select(runs=[k])}) for k in range(10)} == {1}
    assert all(r.mlp.spec.layers[0].norm == ("layer" if r.norm == "layer" else "none") for r in population)
    assert Population.load(tmp_path).content_hash() == population.content_hash()
    assert [(r.run, r.epoch) for r in population] == sorted((r.run, r.epoch) for r in population)


def test_models_have_an_output_for_every_class(toy: Dataset, tmp_path: Path) -> None:
    three = {
        name: dataclasses.replace(rows, y=rows.y + (rows.x[:, 3] > 1))
        for name, rows in (("train", toy.train), ("val", toy.val), ("test", toy.test))
    }
    population = make(dataclasses.replace(toy, **three, class_names=("no", "yes", "very")), tmp_path, 4)
    assert {record.mlp.spec.n_outputs for record in population} == {3}
    assert all(record.mlp.log_proba(toy.test.x).shape == (len(toy.test), 3) for record in population)
    assert all(record.val_loss < 1.5 for record in population)


def test_an_interrupted_build_resumes_to_the_same_population(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(toy, tmp_path / "whole")
    trained: list[int] = []
    real = build._train_one

    def flaky(data: Dataset, task: build._Task, *rest: object) -> build._Task:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(task.runs[0].run)
        return real(data, task, *rest)

    monkeypatch.setattr(build, "_train_one", flaky)
    with pytest.raises(KeyboardInterrupt):
        make(toy, tmp_path / "cut")
    with pytest.raises(InvalidPopulationError, match="unfinished build"):
        Population.load(tmp_path / "cut")
    assert len({r.run for r in Population.load(tmp_path / "cut", partial=True)}) == 8
    trained[:] = [-1]
    resumed = make(toy, tmp_path / "cut")
    assert trained == [-1, 8]
    assert resumed.content_hash() == whole.content_hash()


def test_more_runs_continue_a_build(toy: Dataset, tmp_path: Path) -> None:
    small = make(toy, tmp_path / "a", n_runs=6)
    large = make(toy, tmp_path / "a", n_runs=10)
    assert large.content_hash() == make(toy, tmp_path / "b", n_runs=10).content_hash()
    assert [r.mlp.content_hash() for r in small[:12]] == [r.mlp.content_hash() for r in large[:12]]
    assert len(list((tmp_path / "a").glob("*.parquet"))) == 3


def test_threads_give_the_same_population(toy: Dataset, tmp_path: Path) -> None:
    alone = make(toy, tmp_path / "one", n_runs=8)
    assert make(toy, tmp_path / "two", n_runs=8, jobs=2).content_hash() == alone.content_hash()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_one_thread_that_fails_ends_the_others(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    begun: list[int] = []

    def endless(data: Dataset, task: build._Task, on_epoch: Callable[[int], None]) -> build._Task:
        begun.append(task.runs[0].run)
        if task.runs[0].run == 4:
            raise error
        for epoch in itertools.count():
            on_epoch(epoch)
            time.sleep(0.001)
        raise AssertionError

    monkeypatch.setattr(build, "_train_one", endless)
    with pytest.raises(error):
        make(toy, tmp_path, n_runs=40, jobs=2)
    assert len(begun) < 10


def test_another_recipe_is_refused(toy: Dataset, tmp_path: Path) -> None:
    make(toy, tmp_path, n_runs=2)
    with pytest.raises(InvalidPopulationError) as caught:
        build_population(toy, 2, seed=2, out_dir=tmp_path, epochs=3, ranges=dataclasses.replace(RANGES, depths=(1,)))
    assert str(caught.value) == (  # what is equal is not told
        f"{tmp_path}: holds another population: ranges depths is [1, 2] there, but [1] was asked for; "
        "seed is 1 there, but 2 was asked for"
    )
    with pytest.raises(InvalidPopulationError, match="dataset is 'toy-fingerprint' there, but 'other' was asked for$"):
        make(dataclasses.replace(toy, fingerprint="other"), tmp_path, n_runs=2)
    assert json.loads((tmp_path / MANIFEST).read_text())["complete"]
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(InvalidPopulationError, match="no build to resume"):
        make(toy, tmp_path, n_runs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_runs": 0}, "positive numbers"),
        ({"checkpoints": [0, 2]}, "checkpoints: expected"),
        ({"jobs": 0}, "positive"),
    ],
)
def test_bad_options(toy: Dataset, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(toy, tmp_path, **options)


def test_progress_is_shown_on_request(toy: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(toy, tmp_path / "quiet", n_runs=4)
    assert capsys.readouterr().out == ""
    make(toy, tmp_path / "shown", n_runs=4, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""  # where the summary goes
    assert "training groups" in shown.err
    assert "1/1" in shown.err


def test_it_needs_no_torch(toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert len(make(toy, tmp_path, n_runs=4)) == 8


def test_the_store_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, metaedit_fast.population, metaedit_fast.datasets; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "False"
