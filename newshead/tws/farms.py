"""IBKR's data farms as TWS names them: which one a text is about, and which carry US stocks.

TWS's texts come in the user's language; the names in them do not. Sources: public logs of
TWS and IB Gateway.
"""

import re
from typing import Final

# The name stands at the end, behind a colon, or behind a full stop without a blank (2108:
# "…should be available upon demand.usfarm"), the Chinese ones too; it may hold full stops
# itself (usfarm.nj).
_NAME: Final = re.compile(r"[:.\uff1a\u3002]\s*([^\s:\uff1a]+)$")
_NAMES: Final = re.compile(r"(not connected|connected):\s*(.+?)(?=\.?$|\.\s)")

# The farms of other markets and kinds of data, by the first part of their names.
_OTHER_FARMS: Final = frozenset(
    {"usfuture", "usopt", "usbond", "hfarm", "eufarm", "cashfarm", "jfarm", "cafarm", "afarm"}
)
_HISTORY: Final = "hmds"
_DEFINITIONS: Final = "secdef"


def farm_name(text: str) -> str:
    """Return the name of the farm that a farm's code is about; empty where it names none."""
    found = _NAME.search(text.strip().rstrip("."))
    return found[1].lower() if found else ""


def carries_us_stocks(name: str) -> bool:
    """Tell whether US stocks' data comes from a farm; of an unknown one it is assumed."""
    family = name.partition(".")[0]
    return not (
        family in _OTHER_FARMS or family.endswith(_HISTORY) or family.startswith(_DEFINITIONS)
    )


def farms_away(text: str) -> frozenset[str] | None:
    """Return the farms that code 1102 names as not connected; None if it names none at all."""
    found = _NAMES.findall(" ".join(text.split()))
    if not found:
        return None
    away = (names for kind, names in found if kind == "not connected")
    listed = (name.strip(" .").lower() for names in away for name in re.split(r"[;,]", names))
    return frozenset(listed) - {""}
