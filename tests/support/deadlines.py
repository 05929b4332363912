"""How long tests wait for what they wait for."""

from typing import Final

# A few times what the slowest machine takes; only a test that fails waits for so long.
DEADLINE_S: Final = 60.0
