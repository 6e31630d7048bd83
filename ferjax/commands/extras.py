"""Packages that only some commands need, and that an extra installs."""

import importlib.util
from collections.abc import Sequence

from ferjax.commands.errors import CommandError


def require_extra(name: str, user: str, packages: Sequence[str]) -> None:
  """Checks that the packages of an extra can be imported, without importing them.

  Args:
    name: of the extra.
    user: what needs it, such as "ferjax serve".
    packages: what the extra installs, under the names of imports.

  Raises:
    CommandError: a package is missing; the message says how to install the extra.
  """
  if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
    raise CommandError(
      f"{user} needs {', '.join(missing)}, which cannot be imported; install the extra: "
      f"pip install 'ferjax[{name}]'"
    )
