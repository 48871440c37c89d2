"""Every exception that metaedit_fast raises on purpose."""


class MetaeditError(Exception):
    """Base of all errors of this package."""


class UnsupportedModelError(MetaeditError, ValueError):
    """A model cannot be read as an MLP, or an edit cannot be written back into it.

    The message names the node or module, what was expected and what was found.
    """


class InvalidEditorError(MetaeditError, ValueError):
    """An editor file is damaged, of an unknown version, or was not written by this package."""


class InvalidPopulationError(MetaeditError, ValueError):
    """A population store is damaged or does not follow the documented schema."""


class InvalidCheckpointError(MetaeditError, ValueError):
    """The state of a training is damaged, belongs to another training, or was not written by this package."""


class DatasetNotFoundError(MetaeditError, LookupError):
    """A named dataset was found in none of its sources; the message lists what was tried."""


class MissingDependencyError(MetaeditError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""
