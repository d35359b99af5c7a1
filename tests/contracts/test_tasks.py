"""Every target task, now and later: found by listing the folder, held to the promises of `TaskContract`."""

from __future__ import annotations

from parts2whole.contracts import TaskContract, suites
from parts2whole.spec import discover
from parts2whole.tasks.base import Task

globals().update(suites(TaskContract, discover(Task, "parts2whole.tasks")))
