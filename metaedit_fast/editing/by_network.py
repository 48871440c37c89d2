"""Edits that an engine makes with passes of a metanetwork, for each requirement."""

from __future__ import annotations

from metaedit_fast.editing.groups import GroupEditor
from metaedit_fast.editing.inputs import edit_inputs
from metaedit_fast.editing.job import Edit, EditJob, Network
from metaedit_fast.requirements import DataMinimisation, EqualizedOdds


def start(network: Network, job: EditJob, *, num_threads: int) -> Edit:
    """``Engine.start``."""
    requirement = job.requirement
    if isinstance(requirement, DataMinimisation):
        return lambda budgets: edit_inputs(network, job.at(budgets), requirement, num_threads=num_threads)
    if isinstance(requirement, EqualizedOdds):
        return GroupEditor(network, job, num_threads=num_threads).edit
    return lambda budgets: network.edit(job.at(budgets), num_threads=num_threads)
