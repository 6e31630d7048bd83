"""The error that every command ends with."""


class CommandError(Exception):
  """What the user can correct: `main` shows it without a traceback."""
