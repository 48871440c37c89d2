"""ONNX models as MLPs, and back: the graph stays as it is, only its parameters are replaced.

How a graph is read: ``graph`` checks it and knows its constants; ``walk`` goes through the nodes
and gives each tensor a meaning with the functions that ``linear``, ``elementwise``,
``activations`` and ``shapes`` register by operator; ``assemble`` turns the meaning of the
output into layers and slots; ``write`` puts edited numbers back. ``export`` makes fresh files.
"""

from metaedit_fast.models.onnx.adapter import MAX_FILE_BYTES, OpenedOnnx, open_onnx, read_onnx_file
from metaedit_fast.models.onnx.export import mlp_to_onnx

__all__ = ["MAX_FILE_BYTES", "OpenedOnnx", "mlp_to_onnx", "open_onnx", "read_onnx_file"]
