"""Failures a user can mend: one line that names the value, what is allowed, and what to do.

The exit code of a command is the kind of failure: 2 flags, 3 data, 4 numerics, 5 storage (1: some runs failed, the
others finished). `comparisons.cli` turns each into one line on stderr, never a traceback.
"""


class UserError(Exception):
    """Base of the failures below; `exit_code` is what the command ends with."""

    exit_code = 1


class FlagError(UserError):
    """A flag has a value that is not allowed."""

    exit_code = 2


class DataError(UserError):
    """A data set is missing, damaged, or holds values that no model here accepts."""

    exit_code = 3


class NumericsError(UserError):
    """A computation left the finite numbers, or an estimate could not reach its tolerance."""

    exit_code = 4


class StorageError(UserError):
    """A result could not be written or read back."""

    exit_code = 5
