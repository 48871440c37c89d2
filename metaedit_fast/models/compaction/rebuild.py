"""The smaller network as a model of the kind that it was read from."""

from __future__ import annotations

from typing import Any

from metaedit_fast.errors import UnsupportedModelError
from metaedit_fast.models.compaction.plan import Plan
from metaedit_fast.models.convert import open_model
from metaedit_fast.models.opened import Opened

FRESH_ONNX_NOTE = "written as a graph of its own (input x, output y): the given one fixes its widths in other places"
FRESH_TORCH_NOTE = "rebuilt as a module of its own: the given one is no nn.Sequential of modules that can be cut"

FRESH_TENSORS_NOTE = "written as tensors of other names, in float32, with their architecture beside them"


def rebuilt(opened: Opened[Any], plan: Plan) -> tuple[Any, tuple[str, ...]]:
    """A new model of the smaller network, and notes about what of the given one could not be kept.

    Its parts are cut where they are, so that numbers that stay keep their bits; the result is read again, and
    a folded constant is written where an edit would be. What cannot be cut becomes a fresh model. Raises
    ``UnsupportedModelError`` for a program of ``torch.export``, and inputs that are dropped behind other steps.
    """
    if plan.is_identity:
        return opened.write(opened.mlp), ()
    if opened.kind == "mlp":
        return plan.mlp, ()
    if opened.kind == "sklearn":
        from metaedit_fast.models.compaction.sklearn import cut_sklearn

        return _filled(cut_sklearn(opened.model, plan), plan), ()
    if opened.kind == "torch":
        from metaedit_fast.models.compaction.torch import cut_torch, fresh_torch

        module = _filled(cut_torch(opened.model, plan), plan)
        return (module, ()) if module is not None else (fresh_torch(opened.model, plan), (FRESH_TORCH_NOTE,))
    if opened.kind == "torch_export":
        raise UnsupportedModelError("a program fixes its widths; compact the module that was exported, and export that")
    if opened.kind == "safetensors":
        from metaedit_fast.models.safetensors import mlp_to_safetensors

        return mlp_to_safetensors(plan.mlp, folder=opened.model.is_folder), (FRESH_TENSORS_NOTE,)
    from metaedit_fast.models.compaction.onnx import cut_onnx
    from metaedit_fast.models.onnx import mlp_to_onnx

    graph = _filled(cut_onnx(opened.model, plan), plan)
    return (graph, ()) if graph is not None else (mlp_to_onnx(plan.mlp), (FRESH_ONNX_NOTE,))


def _filled(model: Any, plan: Plan) -> Any:
    """``model`` with the parameters of the plan; None where it is another network."""
    if model is None:
        return None
    try:
        open_model(model).write_into(plan.mlp)
    except UnsupportedModelError:
        return None
    return model
