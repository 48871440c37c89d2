"""A population on disk: a folder of Parquet shards and a small manifest.

One row a checkpoint. ``spec`` is the canonical JSON of its ``MLPSpec`` (dictionary-encoded, so equal
architectures cost a number), ``weights`` its θ as little-endian float32; the other columns are listed in
``SCHEMA``. A sampled population has nearly as many architectures as runs, so shards mix them. Nothing in a shard
is executed: no pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from metaedit_fast.atomic import atomic_file, write_atomically
from metaedit_fast.errors import InvalidPopulationError
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.population.record import PopulationRecord
from metaedit_fast.population.sampling import split_of

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
MANIFEST = "population.json"
ROWS_PER_SHARD = 4096
# Caps against absurd files: far above any population of small networks, far below what exhausts a machine.
MAX_PARAMETERS = 50_000_000
MAX_SHARD_BYTES = 4 << 30
MAX_SHARDS = 100_000
MAX_MANIFEST_BYTES = 64 << 20
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\.parquet")
_TEXT_COLUMNS = ("split", "norm")
_FLOAT_COLUMNS = ("dropout", "learning_rate", "weight_decay", "val_accuracy", "val_loss")
_INT_COLUMNS = {"run": "int64", "checkpoint": "int8", "epoch": "int32", "batch_size": "int32"}


class Population(Sequence[PopulationRecord]):
    """An ordered collection of trained MLPs with what is known about their training.

    ``dataset`` is the fingerprint of the data they were trained on (empty where unknown), ``info`` a small
    JSON object that travels with the population: how it was made.
    """

    def __init__(
        self, records: Iterable[PopulationRecord], *, dataset: str = "", info: dict[str, Any] | None = None
    ) -> None:
        self._records = tuple(records)
        self.dataset = dataset
        self.info = dict(info or {})

    @classmethod
    def from_mlps(
        cls, mlps: Iterable[MLP], *, split: str | None = None, seed: int = 0, dataset: str = ""
    ) -> Population:
        """Models of unknown history, each a run of its own.

        All belong to ``split``; without one, 15 of every 20 go to train, 2 to val and 3 to test, by ``seed``.
        """
        return cls(
            (PopulationRecord(mlp=m, run=i, split=split or split_of(i, seed)) for i, m in enumerate(mlps)),
            dataset=dataset,
        )

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[PopulationRecord]:
        return iter(self._records)

    @overload
    def __getitem__(self, index: int) -> PopulationRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Population: ...
    def __getitem__(self, index: int | slice) -> PopulationRecord | Population:
        if isinstance(index, slice):
            return Population(self._records[index], dataset=self.dataset, info=self.info)
        return self._records[index]

    @property
    def mlps(self) -> list[MLP]:
        """The models alone, in order."""
        return [record.mlp for record in self._records]

    def select(
        self,
        *,
        split: str | None = None,
        checkpoint: int | None = None,
        runs: Iterable[int] | None = None,
        finite: bool | None = True,
    ) -> Population:
        """The records that fit every condition given; diverged models only with ``finite=None`` or False."""
        wanted = None if runs is None else set(runs)
        kept = (
            r
            for r in self._records
            if (split is None or r.split == split)
            and (checkpoint is None or r.checkpoint == checkpoint)
            and (wanted is None or r.run in wanted)
            and (finite is None or r.finite == finite)
        )
        return Population(kept, dataset=self.dataset, info=self.info)

    def content_hash(self) -> str:
        """sha256 over all records and the dataset, in hex; the layout of the shards does not matter."""
        digest = hashlib.sha256(self.dataset.encode())
        texts = _SpecTexts()
        for record in self._records:
            mlp = record.mlp
            digest.update(texts[mlp.spec].encode())
            for part in (mlp.theta, mlp.input_scale, mlp.input_shift):
                digest.update(b"-" if part is None else _bytes(part))
            digest.update(repr(record.metadata()).encode())
        return digest.hexdigest()

    def save(self, folder: str | os.PathLike[str], *, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        """Write the population into ``folder``, which must be new or empty.

        The manifest is written last, so a folder without one is an unfinished copy. Raises
        ``FileExistsError`` where the folder holds something.
        """
        writer = PopulationWriter(folder, dataset=self.dataset, rows_per_shard=rows_per_shard)
        for record in self._records:
            writer.add(record)
        writer.close(self.info)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, partial: bool = False) -> Population:
        """Read a population in the order in which it was saved; every length, number and hash is checked.

        ``partial`` reads the finished shards of a build that is still going on or was interrupted; the runs
        are then in the order of their numbers.
        Raises ``InvalidPopulationError`` that names the shard and row, ``FileNotFoundError`` without a
        manifest.
        """
        stored = StoredPopulation(folder, partial=partial)
        return cls(stored, dataset=stored.dataset, info=stored.info)

    def __repr__(self) -> str:
        runs = len({r.run for r in self._records})
        return f"Population({len(self)} models of {runs} runs)"


class StoredPopulation:
    """A population on disk, which is read a shard at a time: each ``iter`` gives the records in order.

    ``dataset`` and ``info`` are those of ``Population``; errors are those of ``Population.load``, that of a shard when
    it comes to it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, partial: bool = False) -> None:
        self.folder = Path(folder)
        manifest = read_manifest(self.folder, partial=partial)
        self.dataset: str = manifest["dataset"]
        self.info: dict[str, Any] = manifest["info"]
        self._shards: list[str] = manifest["shards"]

    def __iter__(self) -> Iterator[PopulationRecord]:
        split_of: dict[int, str] = {}
        for name in self._shards:
            for record in read_shard(self.folder / name, dataset=self.dataset):
                first = split_of.setdefault(record.run, record.split)
                # Checkpoints of one run in two splits would let a test model leak into training.
                expected = f"all checkpoints of run {record.run} in {first}"
                _expect(first == record.split, self.folder, expected, record.split)
                yield record


class PopulationWriter:
    """Writes a population record by record, with one shard of them in memory; it is there once it is closed.

    Raises ``FileExistsError`` where the folder holds something.
    """

    def __init__(self, folder: str | os.PathLike[str], *, dataset: str, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        self._folder, self._dataset, self._rows = Path(folder), dataset, rows_per_shard
        if self._folder.exists() and any(self._folder.iterdir()):
            raise FileExistsError(f"{self._folder}: expected a new or empty folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._waiting: list[PopulationRecord] = []
        self._shards: list[str] = []

    def add(self, record: PopulationRecord) -> None:
        """Take the next record; every so many of them are written."""
        self._waiting.append(record)
        if len(self._waiting) == self._rows:
            self._write()

    def close(self, info: dict[str, Any]) -> None:
        """Write what is left, and the manifest."""
        if self._waiting:
            self._write()
        write_manifest(self._folder, self._shards, dataset=self._dataset, info=info)

    def _write(self) -> None:
        self._shards.append(f"shard-{len(self._shards):05d}.parquet")
        write_shard(self._folder / self._shards[-1], self._waiting, dataset=self._dataset)
        self._waiting = []


def write_manifest(
    folder: Path, shards: Sequence[str], *, dataset: str, info: dict[str, Any], complete: bool = True
) -> None:
    """Write the manifest atomically; ``complete`` is False while a build goes on."""
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "complete": complete,
        "dataset": dataset,
        "shards": list(shards),
        "info": info,
    }
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def read_manifest(folder: Path, *, partial: bool = False) -> dict[str, Any]:
    """Read and check the manifest; for ``partial``, an unfinished one lists the shards present by now."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no population here (no {MANIFEST})")
    try:
        size = path.stat().st_size
        _expect(size <= MAX_MANIFEST_BYTES, path, f"at most {MAX_MANIFEST_BYTES} bytes", size)
        manifest = json.loads(path.read_text())
        version, shards = manifest["schema_version"], manifest["shards"]
        _expect(version == SCHEMA_VERSION, path, f"schema version {SCHEMA_VERSION}", version)
        _expect(isinstance(manifest["complete"], bool), path, "complete as true or false", manifest["complete"])
        _expect(isinstance(manifest["dataset"], str), path, "dataset as text", manifest["dataset"])
        _expect(isinstance(manifest["info"], dict), path, "info as an object", manifest["info"])
        _expect(isinstance(shards, list) and len(shards) <= MAX_SHARDS, path, f"at most {MAX_SHARDS} shards", shards)
        _expect(len(set(shards)) == len(shards), path, "every shard once", shards)
        for name in shards:
            # A plain file name: a manifest must not lead outside its folder.
            _expect(isinstance(name, str) and bool(_SHARD_NAME.fullmatch(name)), path, "a shard's file name", name)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InvalidPopulationError):
            raise
        raise InvalidPopulationError(f"{path}: not the manifest of a population: {error!r}") from error
    if not manifest["complete"]:
        if not partial:
            raise InvalidPopulationError(
                f"{folder}: expected a finished population, got an unfinished build (partial=True reads what is there)"
            )
        manifest["shards"] = sorted(p.name for p in folder.glob("*.parquet"))  # names begin with the first run
    return dict(manifest)


def arrow_schema(dataset: str) -> pa.Schema:
    """The columns of a shard; the schema's metadata carry the version and the dataset's fingerprint."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    fields = [pa.field("spec", text, nullable=False), pa.field("weights", pa.binary(), nullable=False)]
    fields += [pa.field("input_scale", pa.binary()), pa.field("input_shift", pa.binary())]
    fields += [pa.field(name, pa.type_for_alias(kind), nullable=False) for name, kind in _INT_COLUMNS.items()]
    fields += [pa.field(name, text, nullable=False) for name in _TEXT_COLUMNS]
    fields += [pa.field(name, pa.float64(), nullable=False) for name in _FLOAT_COLUMNS]
    fields += [pa.field("finite", pa.bool_(), nullable=False)]
    return pa.schema(fields, metadata={"metaedit_population": str(SCHEMA_VERSION), "dataset": dataset})


def write_shard(path: Path, records: Sequence[PopulationRecord], *, dataset: str) -> None:
    """Write one shard atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(dataset)
    texts = _SpecTexts()
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for record in records:
        mlp = record.mlp
        columns["spec"].append(texts[mlp.spec])
        columns["weights"].append(_bytes(mlp.theta))
        columns["input_scale"].append(None if mlp.input_scale is None else _bytes(mlp.input_scale))
        columns["input_shift"].append(None if mlp.input_shift is None else _bytes(mlp.input_shift))
        columns["finite"].append(record.finite)
        for name, value in record.metadata().items():
            columns[name].append(value)
    table = pa.table({f.name: pa.array(columns[f.name], f.type) for f in schema}, schema=schema)
    # Weights are noise to a compressor, and a dictionary of them would only be built in vain.
    dictionaries = ["spec", *_TEXT_COLUMNS]
    with atomic_file(path) as out:
        pq.write_table(table, out, compression="none", use_dictionary=dictionaries, write_page_checksum=True)


def read_shard(path: Path, *, dataset: str | None = None) -> list[PopulationRecord]:
    """Read and check one shard; ``dataset``, where given, must be the shard's own.

    Raises ``InvalidPopulationError`` for anything that is not a shard as ``write_shard`` writes it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        size = path.stat().st_size
        _expect(size <= MAX_SHARD_BYTES, path, f"at most {MAX_SHARD_BYTES} bytes", size)
        # The footer's claim about sizes meets the cap before anything of that size is allocated.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            meta = file.metadata
            claimed = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            _expect(claimed <= MAX_SHARD_BYTES, path, f"at most {MAX_SHARD_BYTES} unpacked bytes", claimed)
            table = file.read()
        metadata = table.schema.metadata or {}
        version = metadata.get(b"metaedit_population", b"").decode()
        _expect(version == str(SCHEMA_VERSION), path, f"schema version {SCHEMA_VERSION}", version or "none")
        found = metadata.get(b"dataset", b"").decode()
        _expect(dataset in (None, found), path, f"models of dataset {dataset}", found)
        wanted = arrow_schema(found)
        _expect(table.schema.equals(wanted), path, f"the columns {wanted.names} with their types", table.schema.names)
        table.validate(full=True)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        if isinstance(error, FileNotFoundError):
            raise InvalidPopulationError(f"{path}: the manifest lists this shard, but it is not there") from error
        raise InvalidPopulationError(f"{path}: not a readable Parquet file: {error}") from error
    specs = {text: _parse_spec(path, text) for text in set(columns["spec"])}
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return [_record(path, i, specs, dict(zip(names, row, strict=True))) for i, row in enumerate(rows)]


def _record(path: Path, row: int, specs: dict[str, MLPSpec], cell: dict[str, Any]) -> PopulationRecord:
    where = f"{path}, row {row}"
    nulls = [name for name, value in cell.items() if value is None and name not in ("input_scale", "input_shift")]
    _expect(not nulls, where, "no missing cells", nulls)
    spec = specs[cell.pop("spec")]
    arrays = {}
    for name, length in (
        ("weights", spec.n_parameters),
        ("input_scale", spec.n_inputs),
        ("input_shift", spec.n_inputs),
    ):
        raw = cell.pop(name)
        if raw is not None:
            _expect(len(raw) == 4 * length, where, f"{name} of {4 * length} bytes", len(raw))
            # A copy: an edit may write into θ, and Arrow's buffers are shared and read-only.
            arrays[name] = np.frombuffer(raw, "<f4").astype(np.float32)
    finite = cell.pop("finite")
    mlp = MLP(spec, arrays["weights"], arrays.get("input_scale"), arrays.get("input_shift"))
    try:
        record = PopulationRecord(mlp=mlp, **cell)
    except ValueError as error:
        raise InvalidPopulationError(f"{where}: {error}") from error
    _expect(record.finite == finite, where, f"the flag finite to be {record.finite}", finite)
    return record


def _parse_spec(path: Path, text: str) -> MLPSpec:
    try:
        spec = MLPSpec.from_json(text)
        _expect(spec.n_parameters <= MAX_PARAMETERS, path, f"at most {MAX_PARAMETERS} parameters", spec.n_parameters)
    except ValueError as error:
        raise InvalidPopulationError(f"{path}: {error}") from error
    return spec


class _SpecTexts:
    """Each architecture's JSON, made once: thousands of models share a few spec objects."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[MLPSpec, str]] = {}

    def __getitem__(self, spec: MLPSpec) -> str:
        # By identity, because hashing a spec costs as much as its JSON; the spec kept here keeps its id taken.
        if id(spec) not in self._known:
            self._known[id(spec)] = (spec, spec.to_json())
        return self._known[id(spec)][1]


def _bytes(array: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    return array.astype("<f4", copy=False).tobytes()


def _expect(condition: bool, where: object, expected: str, got: object) -> None:
    if not condition:
        raise InvalidPopulationError(f"{where}: expected {expected}, got {got!r}")
