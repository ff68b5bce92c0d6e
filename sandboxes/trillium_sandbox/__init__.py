"""Run programs that nobody trusts, and decide the verdict outside the candidate's process.

Imports the standard library only; nothing here knows about models, trees or training.
"""

from trillium_sandbox.base import Backend
from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.levels import LEVELS, Level, Probe, probe
from trillium_sandbox.limits import Limits
from trillium_sandbox.opening import open_backend
from trillium_sandbox.verdicts import Mode, Reply, Request, Status, TestStatus

__all__ = [
    "LEVELS",
    "Backend",
    "Level",
    "Limits",
    "Mode",
    "Probe",
    "Reply",
    "Request",
    "RequestError",
    "SandboxError",
    "Status",
    "TestStatus",
    "open_backend",
    "probe",
]
