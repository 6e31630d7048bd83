"""The error of all commands."""


class CommandError(Exception):
  """An error that the user can correct; `main` prints it without a traceback."""
