"""What calls that take one or many models give back: a sequence of records, each with its model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar, overload


class HasModel(Protocol):
    """One entry of a result."""

    @property
    def model(self) -> Any: ...


RecordT = TypeVar("RecordT", bound=HasModel)


class Records(Sequence[RecordT]):
    """Records in the order of the given models."""

    def __init__(self, records: Sequence[RecordT]) -> None:
        self._records = tuple(records)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[RecordT]:
        return iter(self._records)

    @overload
    def __getitem__(self, index: int) -> RecordT: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RecordT]: ...
    def __getitem__(self, index: int | slice) -> RecordT | Sequence[RecordT]:
        return self._records[index]

    @property
    def models(self) -> list[Any]:
        """One model per record, in order; the untouched original where it was refused."""
        return [record.model for record in self._records]

    @property
    def model(self) -> Any:
        """The model of a result that has one. Raises ``ValueError`` otherwise."""
        if len(self) != 1:
            raise ValueError(f"model: this result has {len(self)} models; use .models or index the result")
        return self._records[0].model


def aligned(rows: list[list[str]]) -> list[str]:
    """The lines of a table as text, columns flush left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
