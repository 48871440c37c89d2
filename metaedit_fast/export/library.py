"""The compiled core as a library of custom operators: the faster of the two speeds of an editor's ONNX file.

The nodes of the file are functions of standard operators. A session that registers this library runs its kernels
in their place (csrc/ort); one that does not, or cannot, runs the functions.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from typing import TYPE_CHECKING

from metaedit_fast import _core

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

# Entries of a session's configuration, to be made before the library is registered.
PRECISION_ENTRY = "metaedit.precision"
THREADS_ENTRY = "metaedit.num_threads"
ISA_ENTRY = "metaedit.isa"

_ERRORS_ONLY = 3  # ONNX Runtime prints its warnings to stderr
_log = logging.getLogger(__name__)
_counting = threading.Lock()


def ort_library_path() -> str:
    """The file for ``SessionOptions.register_custom_ops_library``, or its counterpart in another language.

    It holds the kernels of the operators of an editor's ``.onnx`` file; docs/deployment.md tells what a session can
    choose.
    """
    return str(_core.__file__)


@dataclasses.dataclass(frozen=True)
class OpenSession:
    """A session, and whether kernels of this library run in it; else the functions in the file do, in float32."""

    session: InferenceSession
    runs_kernels: bool


def open_session(
    model: bytes, *, n_threads: int = 1, kernels: bool = False, precision: str = "float32", isa: str | None = None
) -> OpenSession:
    """A session for ``model`` on the CPU; ``n_threads`` is the number of threads inside one call.

    With ``kernels`` the library runs, in ``precision`` and on ``isa`` (as in ``metanet.native``). Where a session
    with the library does not open, or finds no node for it, the one that is returned runs the functions in the
    file, and a warning in the log says why.
    """
    if not kernels:
        return OpenSession(_session(model, _options(n_threads)), runs_kernels=False)
    entries = {PRECISION_ENTRY: precision, THREADS_ENTRY: str(n_threads), **({ISA_ENTRY: isa} if isa else {})}
    try:
        with _counting:
            before = _core.ort_kernel_count()
            session = _session(model, _with_library(_options(n_threads), entries))
            found = _core.ort_kernel_count() - before
    except Exception as error:  # what ONNX Runtime raises has no base of its own
        # Fresh options: those that met the library keep what they have of it.
        plain = _session(model, _options(n_threads))
        _log.warning("no kernels of %s: %s", ort_library_path(), error)
        return OpenSession(plain, runs_kernels=False)
    if found == 0:
        _log.warning("no kernels of %s: the session made none", ort_library_path())
    return OpenSession(session, runs_kernels=found > 0)


def _options(n_threads: int) -> SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return options


def _with_library(options: SessionOptions, entries: dict[str, str]) -> SessionOptions:
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    options.register_custom_ops_library(ort_library_path())
    return options


def _session(model: bytes, options: SessionOptions) -> InferenceSession:
    import onnxruntime

    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
