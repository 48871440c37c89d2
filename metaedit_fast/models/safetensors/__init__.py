"""Files of tensors as MLPs, and back.

``container`` is the file format, ``config`` the architecture beside the tensors, ``reading`` what both make together;
``adapter`` opens files and folders, and writes them.
"""

from metaedit_fast.models.safetensors.adapter import SafetensorsModel, mlp_to_safetensors, open_safetensors

__all__ = ["SafetensorsModel", "mlp_to_safetensors", "open_safetensors"]
