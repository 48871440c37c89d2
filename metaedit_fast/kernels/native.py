"""The metanetwork layer on the compiled kernels, over numpy arrays: no torch needed.

Kernels exist for several instruction sets; the best one that the machine has runs, or the one that the
environment variable ``METAEDIT_ISA`` names (``serial``, ``avx2``, ``avx512``, ``avx512_bf16``, ``amx``). The last
two run the float32 kernels of ``avx512`` and have others for lower precisions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metaedit_fast import _core
from metaedit_fast.graph import WeightGraphBatch

Float32 = NDArray[np.float32]

FORMS = {"shipped": _core.shipped_forward, "official": _core.official_forward}


def layer_forward(
    form: str,
    batch: WeightGraphBatch,
    h: Float32,
    e: Float32,
    parameters: Mapping[str, Float32],
    *,
    isa: str | None = None,
    precision: str = "float32",
    out: tuple[Float32, Float32] | None = None,
) -> tuple[Float32, Float32]:
    """One forward layer: the next ``(h, e)``.

    ``form`` is ``"shipped"`` or ``"official"``; ``h`` is float32 ``[batch.n_nodes, d_v]`` and ``e``
    float32 ``[batch.n_edges, d_e]`` in the batch's edge order. ``parameters`` has the names and shapes
    of the reference layer's ``state_dict``. ``isa`` names an instruction set to run instead of the active
    one, ``precision`` what products may be rounded to, as in ``metaedit_fast.metanet.native``. ``out`` names
    arrays to write to instead of new ones; they must not overlap the inputs. Arrays are C-contiguous and never
    converted or copied.

    Equivalent to: ``reference.LAYERS[form](d_e, d_v)`` with these parameters, without gradients.

    Raises ``ValueError`` for an unknown form, a wrong shape or layout, a parameter that is missing or
    unknown, an unknown precision, or an instruction set that this machine lacks, ``TypeError`` for a wrong dtype.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected one of {tuple(FORMS)}, got {form!r}")
    for name, array, rows in (("h", h, batch.n_nodes), ("e", e, batch.n_edges)):
        if array.ndim != 2 or array.shape[0] != rows:
            raise ValueError(f"{name}: expected shape [{rows}, any], got {array.shape}")
    return FORMS[form](batch.blocks, h, e, dict(parameters), isa=isa, precision=precision, out=out)
