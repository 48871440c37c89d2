"""The public tables the experiments use: found, hash-checked, encoded and split."""

from metaedit_fast.datasets.load import Dataset, Rows, load_dataset

__all__ = ["Dataset", "Rows", "load_dataset"]
