"""Populations of trained MLPs: sampled, trained, stored as Parquet."""

from metaedit_fast.population.build import build_population
from metaedit_fast.population.record import PopulationRecord
from metaedit_fast.population.sampling import Ranges, RunSpec, sample_run, sample_runs
from metaedit_fast.population.store import Population

__all__ = ["Population", "PopulationRecord", "Ranges", "RunSpec", "build_population", "sample_run", "sample_runs"]
