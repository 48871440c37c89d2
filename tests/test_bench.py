"""``metaedit bench``: every task runs, the JSON has its columns, missing peers cost a figure and no more."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from metaedit_fast import _core
from metaedit_fast.bench import peers
from metaedit_fast.bench.bounds import Work, network_work, passes_work
from metaedit_fast.bench.compare import Candidate, compare
from metaedit_fast.bench.machine import Peaks
from metaedit_fast.bench.network import NetworkCase, official, shipped
from metaedit_fast.bench.population import chain, equal_population, mixed_population
from metaedit_fast.bench.rows import TASKS, Row
from metaedit_fast.bench.suite import RUNS
from metaedit_fast.bench.table import as_text
from metaedit_fast.bench.tasks.forward import native_forward
from metaedit_fast.bench.timing import Rounds, Timed, interleaved
from metaedit_fast.cli import app
from metaedit_fast.metanet.config import MetanetConfig

COLUMNS = (
    "task", "form", "engine", "precision", "threads", "ms_per_model", "ratio_to_pyg", "fraction_of_bound", "error",
    "peak_mb",
)  # fmt: skip
PEAKS = Peaks(
    threads=2, isa="avx2", multiply_add=1.0, addition=0.25, silu=4.0, bf16_product=0.5, bf16_silu=2.0, copy=None
)


def bench(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["bench", "--quick", "--json", "--threads", "2", *arguments])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def check(report: dict[str, Any]) -> None:
    assert set(report) == {"machine", "rows"}
    assert report["machine"]["isa"] == _core.isa()
    for row in report["rows"]:
        assert set(COLUMNS) <= set(row)
        assert row["task"] in TASKS
        if row["ms_per_model"] is None:
            assert row["note"]
        else:
            assert row["ms_per_model"] > 0
            assert row["spread"] >= 0
        assert row["fraction_of_bound"] is None or row["fraction_of_bound"] > 0


@pytest.mark.parametrize("task", RUNS)
def test_every_task_runs(task: str) -> None:
    report = bench("--only", task)
    check(report)
    assert {row["task"] for row in report["rows"]} == {task}
    natives = [row for row in report["rows"] if row["engine"] == "native"]
    assert natives
    if task != "training":  # whose only kind of gradients to compare with is torch's
        assert not [row for row in natives if row["ms_per_model"] is None]


def test_missing_peers_leave_rows_without_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_is_installed", lambda package: False)
    report = bench("--only", "evaluation", "--only", "training")
    check(report)
    for row in report["rows"]:
        if row["engine"] != "native" or row["task"] == "training":
            assert row["ms_per_model"] is None
            assert "is not installed (pip install" in row["note"]


def test_the_table_shows_every_row() -> None:
    rows = [Row("edit", "some models", "native", threads=2).to_json(), Row("forward", "a", "b").to_json()]
    text = as_text({"machine": {"isa": "avx2"}, "rows": rows})
    assert "some models" in text
    assert text.index("edit") < text.index("forward")


def test_an_unknown_task_is_one_line() -> None:
    result = CliRunner().invoke(app, ["bench", "--only", "sleeping"])
    assert result.exit_code == 2
    assert "got 'sleeping'" in result.stderr


def test_statistics() -> None:
    timed = Timed((3.0, 1.0, 2.0, 5.0, 4.0))
    assert (timed.median, timed.best, timed.quantile(1.0)) == (3.0, 1.0, 5.0)
    assert timed.spread == pytest.approx(1 / 3)


def test_candidates_run_in_turns() -> None:
    now, order = 0.0, []

    def clock() -> float:
        return now

    def run(name: str, seconds: float):
        def step() -> None:
            nonlocal now
            now += seconds
            order.append(name)

        return step

    found = interleaved({"a": run("a", 1.0), "b": run("b", 2.0)}, Rounds(3, 3, 0.0), clock=clock)
    assert "".join(order) == "ab" + "ab" + "abbaab"
    assert found["a"].seconds == (1.0,) * 3
    assert found["b"].seconds == (2.0,) * 3
    few = interleaved({"a": run("a", 1.0)}, Rounds(2, 100, 4.5), clock=clock)
    assert len(few["a"].seconds) == 5
    many = interleaved({"a": run("a", 1.0), "b": run("b", 0.001)}, Rounds(1, 1, 0.0), clock=clock)
    assert len(many["b"].seconds) == 10
    with pytest.raises(ValueError, match="least <= most"):
        Rounds(3, 2, 1.0)


def test_a_wrong_result_gets_no_time() -> None:
    right, wrong = Row("edit", "case", "right"), Row("edit", "case", "wrong")
    candidates = [
        Candidate(row, lambda: lambda: 1.0, lambda got, e=error: e, 1e-3) for row, error in ((right, 0.0), (wrong, 0.1))
    ]
    (first, timed), (second, untimed) = compare(candidates, 4, Rounds(1, 1, 0.0))
    assert first.ms_per_model is not None
    assert timed is not None
    assert second.ms_per_model is None
    assert untimed is None
    assert second.error == 0.1
    assert "so no time is given" in second.extra["note"]


def test_the_population_is_the_same_every_time() -> None:
    mlps = mixed_population()
    assert sum(mlp.spec.n_weights for mlp in mlps) == 379_904
    assert sum(bool(mlp.spec.skips) for mlp in mlps) == 5
    assert mlps[3].content_hash() == mixed_population()[3].content_hash() != mixed_population(seed=1)[3].content_hash()
    sizes = [mlp.spec.n_weights for mlp in equal_population()]
    assert np.mean(sizes) == 2672
    assert len({mlp.spec for mlp in equal_population()}) == 4


def test_operations_take_their_time_on_all_threads() -> None:
    work = Work(products=10, silus=1, norms=2, additions=4)
    assert work.seconds(PEAKS) == (10 + 4 + 2 + 1) / 2
    assert work.seconds(PEAKS, "bf16") == (5 + 2 + 2 + 1) / 2
    assert work.seconds(PEAKS, "bf16x3") is None


def test_operations_of_a_network_add_up() -> None:
    """By hand, for one weight between two neurons: an edge, two nodes."""
    mlp = chain((1, 1))
    for config in (official(8, 1), shipped(8, 8, 1)):
        found = network_work(config, [mlp])
        budget = 32 * (4 + 8 + 32)
        heads = 8 * 64 + 32 * 3 + 2 * (2 * 8 * 64 + 8 * 3)
        around = budget + 32 * 5 + 2 * config.n_node_features * 8 + heads
        if config.form == "official":
            layer = 3 * 64 + 32 * 8 + 2 * (4 * 64 + 3 * 64 + 2 * 64)
            silus = 3 * 8 + 2 * 8
            assert (found.norms, found.additions) == (0, 0)
            assert network_work(config, [mlp], "bf16").norms == 9 * 8
        else:
            layer = 2 * 64 + 32 * 8 + 2 * (2 * 64 + 5 * 8 * 16 + 2 * 64)
            silus = 8 + 2 * 16
        assert found.products == around + layer
        assert found.silus == 32 + 32 + silus + 64
    doubled = network_work(shipped(), [mlp, mlp])
    assert doubled.products == 2 * network_work(shipped(), [mlp]).products


@pytest.mark.parametrize("config", [official(), shipped()], ids=lambda config: config.form)
def test_no_forward_pass_beats_its_bound(config: MetanetConfig) -> None:
    """Each at its best of many: on a busy machine single figures tell little."""
    case = NetworkCase.of(config, [chain((14, 32, 32, 2))])
    work, run = network_work(config, case.mlps), native_forward(case, 1)
    if Peaks.measure(threads=1, seconds=0.001).multiply_add is None:
        pytest.skip("the serial level has no bound")
    took = interleaved({"native": run}, Rounds(30, 30, 0.0))["native"].best
    bounds = [work.seconds(Peaks.measure(threads=1, seconds=0.003)) for _ in range(8)]
    assert min(bound for bound in bounds if bound is not None) < 1.1 * took


def test_operations_of_passes() -> None:
    mlp = chain((3, 4, 2))
    assert passes_work([mlp], 10).products == 10 * 20
    assert passes_work([mlp], 10, backward=True, density=0.5).products == 0.5 * 10 * (3 * 20 - 12)


@pytest.mark.parametrize("isa", _core.available_isas())
def test_peaks_are_plausible(isa: str) -> None:
    peaks = Peaks.measure(threads=1, isa=isa, seconds=0.005)
    assert peaks.copy is not None
    if isa == "serial":
        assert peaks.multiply_add is None
        return
    assert peaks.multiply_add is not None and peaks.silu is not None and peaks.addition is not None
    assert 2 * peaks.multiply_add < peaks.silu < 100 * peaks.multiply_add
    assert 0 <= peaks.addition < 4 * peaks.multiply_add
    assert 1e9 < 1 / peaks.multiply_add < 1e12
    assert json.dumps(peaks.to_json(), allow_nan=False)
    assert math.isclose(peaks.to_json()["multiply_add_gflops"], 2e-9 / peaks.multiply_add)


def test_peaks_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="peak: expected one of multiply_add"):
        _core.measure_peak("speed", seconds=0.001, num_threads=1)
    with pytest.raises(ValueError, match="num_threads"):
        _core.measure_peak("copy", seconds=0.001, num_threads=0)
    with pytest.raises(ValueError, match="isa: expected an instruction set"):
        _core.measure_peak("copy", seconds=0.001, num_threads=1, isa="sse")
