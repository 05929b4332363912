"""newshead: what its commands are made of."""

from typing import Final

# The one place of the version number: pyproject.toml reads it from here.
__version__: Final = "1.0.0"
