import pytest

from ferjax.commands.errors import CommandError
from ferjax.commands.extras import require_extra


def test_missing_packages_are_named_with_the_extra():
  require_extra("zip", "the command", ["json", "zipfile"])
  with pytest.raises(CommandError) as error:
    require_extra("zip", "the command", ["json", "no_such_package", "nor_this_one"])
  assert str(error.value) == (
    "the command needs no_such_package, nor_this_one, which cannot be imported; install the extra: "
    "pip install 'ferjax[zip]'"
  )
