"""Writing files: the old or the whole new one, and errors that name the file that was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import metaedit_fast as mf
from metaedit_fast.atomic import atomic_file, write_atomically
from metaedit_fast.models.mlp import MLP
from metaedit_fast.models.spec import MLPSpec
from metaedit_fast.population import Population
from metaedit_fast.population.store import write_shard


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_after_an_error_nothing_is_left_of_it(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")

    def fails() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        fails()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.bin'"):
        write_atomically(tmp_path / "a.bin", b"x")
    assert list(tmp_path.iterdir()) == []


def test_errors_of_other_files_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'.*other'"), atomic_file(tmp_path / "a.bin"):
        (tmp_path / "other").read_bytes()


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin" / "b").mkdir(parents=True)
    with pytest.raises(OSError, match=r": '[^']*a\.bin'$"):
        write_atomically(tmp_path / "a.bin", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom folders can refuse")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"'[^']*a\.bin'$"):
        write_atomically(tmp_path / "a.bin", b"x")


@pytest.mark.parametrize("writer", ["model", "editor", "shard"])
def test_a_missing_folder_is_named_by_every_writer(tmp_path: Path, writer: str, tiny_editor: mf.Editor) -> None:
    spec = MLPSpec.simple((3, 4, 2))
    mlp = MLP(spec, np.zeros(spec.n_parameters))
    path = tmp_path / "none" / "a.onnx"
    write: dict[str, Callable[[], None]] = {
        "model": lambda: mf.write_model(mlp, path),
        "editor": lambda: tiny_editor.save(path),
        "shard": lambda: write_shard(path, list(Population.from_mlps([mlp])), dataset=""),
    }
    with pytest.raises(FileNotFoundError) as caught:
        write[writer]()
    assert str(caught.value) == f"{path}: cannot be written, there is no folder '{path.parent}'"
