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
def build_info() -> BuildInfo: ...
