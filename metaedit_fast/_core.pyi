from collections.abc import Sequence
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

__version__: str

class BuildInfo(TypedDict):
    version: str
    compiler: str
    flags: str
    processor: str
    cxx_standard: int
    emulates_amx: bool

_Float = TypeVar("_Float", np.float32, np.float64)
_Float32 = NDArray[np.float32]
_Int64 = NDArray[np.int64]
_Bool = NDArray[np.bool_]

class PackedEditor:
    def __init__(
        self,
        parameters: dict[str, _Float32],
        *,
        form: str,
        d_e: int,
        d_v: int,
        n_layers: int,
        head_hidden: int,
        n_edge_features: int,
        n_node_features: int,
        n_node_types: int,
        edits_parameters: bool,
        score_gain: float,
    ) -> None: ...
    def arithmetic(self, precision: str, isa: str | None = None) -> str: ...

class DifferentiableMetanet:
    def __init__(
        self,
        *,
        form: str,
        d_e: int,
        d_v: int,
        n_layers: int,
        head_hidden: int,
        n_edge_features: int,
        n_node_features: int,
        n_node_types: int,
        edits_parameters: bool,
        score_gain: float,
    ) -> None: ...
    @property
    def parameters(self) -> list[tuple[str, list[int]]]: ...
    @property
    def tape_floats(self) -> tuple[int, int]: ...
    def forward(
        self,
        parameters: _Float32,
        batch: tuple[NDArray[Any], ...],
        *,
        num_threads: int,
        isa: str | None = None,
    ) -> tuple[_Float32, _Float32, _Float32, _Float32, _Float32, _Float32]: ...
    def backward(
        self,
        parameters: _Float32,
        batch: tuple[NDArray[Any], ...],
        edge_tape: _Float32,
        node_tape: _Float32,
        gradients: tuple[_Float32, ...],
        *,
        num_threads: int,
        isa: str | None = None,
    ) -> _Float32: ...

class MlpShape:
    def __init__(
        self,
        n_inputs: int,
        layers: Sequence[tuple[int, int, float, bool, float]],
        skips: Sequence[tuple[int, int]],
        *,
        is_regressor: bool,
    ) -> None: ...

class EditShape:
    def __init__(self, mlp: MlpShape, owned: Sequence[tuple[bool, bool]]) -> None: ...

class PanelRows:
    def __init__(self, x: _Float32) -> None: ...

class TrainingRows:
    def __init__(self, x: _Float32, labels: _Int64) -> None: ...

class MlpTrainer:
    def __init__(
        self,
        shape: MlpShape,
        theta: _Float32,
        *,
        batch_norm: bool,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        dropped_bytes: int,
        dropout_state: NDArray[np.uint32],
        isa: str | None = None,
    ) -> None: ...
    def train(self, rows: TrainingRows, order: _Int64) -> None: ...
    def parameters(self) -> _Float32: ...
    def gradient(self) -> _Float32: ...
    def statistics(self) -> tuple[_Float32, _Float32]: ...

def erf(values: NDArray[_Float]) -> NDArray[_Float]: ...
def shipped_forward(
    blocks: _Int64,
    h: _Float32,
    e: _Float32,
    parameters: dict[str, _Float32],
    *,
    isa: str | None = None,
    precision: str = "float32",
    out: tuple[_Float32, _Float32] | None = None,
) -> tuple[_Float32, _Float32]: ...
def official_forward(
    blocks: _Int64,
    h: _Float32,
    e: _Float32,
    parameters: dict[str, _Float32],
    *,
    isa: str | None = None,
    precision: str = "float32",
    out: tuple[_Float32, _Float32] | None = None,
) -> tuple[_Float32, _Float32]: ...
def metanetwork_forward(
    editor: PackedEditor,
    blocks: _Int64,
    block_model: _Int64,
    node_offsets: _Int64,
    features: Sequence[tuple[_Float32, _Float32, _Int64, _Float32]],
    condition: _Float32,
    *,
    num_threads: int,
    isa: str | None = None,
    precision: str = "float32",
    out: tuple[_Float32, _Float32, _Float32, _Float32] | None = None,
) -> tuple[_Float32, _Float32, _Float32, _Float32]: ...
def model_features(
    shape: EditShape,
    theta: _Float32,
    *,
    n_node_types: int,
    statistics: tuple[_Float32, _Float32, _Float32, _Float32] | None = None,
    isa: str | None = None,
) -> tuple[_Float32, _Float32, _Int64, _Float32, _Float32]: ...
def edit_models(
    editor: PackedEditor,
    shapes: Sequence[EditShape],
    theta: _Float32,
    theta_offsets: _Int64,
    condition: _Float32,
    gain: _Float32,
    kept: _Int64,
    *,
    n_inputs: int,
    probe: Sequence[PanelRows] | None,
    scores: bool = False,
    num_threads: int,
    isa: str | None = None,
    precision: str = "float32",
) -> tuple[_Float32, _Float32 | None, _Int64, NDArray[np.float64]]: ...
def mlp_logits(
    models: Sequence[tuple[MlpShape, _Float32, PanelRows]],
    *,
    log_probabilities: bool,
    num_threads: int,
    isa: str | None = None,
) -> list[_Float32]: ...
def mlp_divergence(
    models: Sequence[tuple[MlpShape, _Float32, PanelRows, _Float32]],
    *,
    num_threads: int,
    isa: str | None = None,
) -> list[tuple[float, _Float32]]: ...
def mlp_gradient(
    models: Sequence[tuple[MlpShape, _Float32, PanelRows, _Float32]],
    *,
    num_threads: int,
    isa: str | None = None,
) -> list[_Float32]: ...
def mlp_moments(
    models: Sequence[tuple[MlpShape, _Float32, PanelRows]],
    *,
    num_threads: int,
    isa: str | None = None,
) -> list[tuple[_Float32, _Float32]]: ...
def mlp_statistics(
    models: Sequence[tuple[MlpShape, _Float32, PanelRows]],
    *,
    num_threads: int,
    isa: str | None = None,
) -> list[tuple[_Float32, _Float32, _Float32, _Float32]]: ...
def mlp_evaluate(
    models: Sequence[tuple[MlpShape, _Float32, PanelRows, tuple[MlpShape, _Float32, PanelRows] | PanelRows | None],],
    *,
    cells: _Int64 | None,
    n_counts: int,
    num_threads: int,
    isa: str | None = None,
) -> tuple[NDArray[np.float64], _Int64]: ...
def mlp_refine(
    models: Sequence[tuple[MlpShape, _Float32, PanelRows, MlpShape, _Float32, PanelRows, _Bool]],
    *,
    steps: int,
    odds: tuple[_Int64, int, float, float, float, float] | None = None,
    num_threads: int,
    isa: str | None = None,
) -> list[tuple[_Float32, NDArray[np.float64], int]]: ...
def measure_peak(peak: str, *, seconds: float, num_threads: int, isa: str | None = None) -> float: ...
def ort_kernel_count() -> int: ...
def ort_call_count() -> int: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...
def build_info() -> BuildInfo: ...
