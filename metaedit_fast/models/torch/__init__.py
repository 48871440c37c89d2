"""torch modules as MLPs, and back.

``adapter`` opens a module, with ``graph`` for those that only ``torch.fx`` can follow and ``checks`` for what
cannot be edited; ``exported`` opens what ``torch.export`` made of one, and is imported only there, because that takes
a while; ``modules`` has modules of ours, for MLPs with skips.
"""

from metaedit_fast.models.torch.adapter import open_torch
from metaedit_fast.models.torch.modules import InputNormalisation, SkipMLP, mlp_to_torch

__all__ = ["InputNormalisation", "SkipMLP", "mlp_to_torch", "open_torch"]
