from typing import TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

__version__: str

class BuildInfo(TypedDict):
    version: str
    compiler: str
    flags: str
    processor: str
    cxx_standard: int

_Float = TypeVar("_Float", np.float32, np.float64)

def erf(values: NDArray[_Float]) -> NDArray[_Float]: ...
def shipped_forward(
    blocks: NDArray[np.int64],
    h: NDArray[np.float32],
    e: NDArray[np.float32],
    parameters: dict[str, NDArray[np.float32]],
    *,
    out: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def official_forward(
    blocks: NDArray[np.int64],
    h: NDArray[np.float32],
    e: NDArray[np.float32],
    parameters: dict[str, NDArray[np.float32]],
    *,
    out: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def build_info() -> BuildInfo: ...
