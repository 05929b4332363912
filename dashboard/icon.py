"""The page's icon: it shows in the browser's tab whether all is well, and how many alerted."""

from typing import Final

# The state's colour; any other state is well.
LOST: Final = "lost"
COLOURS: Final = {LOST: "#c8202f"}
WELL: Final = "#1b2430"
MOST: Final = 99


def icon(state: str, alerts: int) -> str:
    """Return the icon as SVG."""
    number = f"{min(alerts, MOST)}" if alerts > 0 else ""
    drawn = (
        f'<text x="8" y="12" text-anchor="middle" font-family="sans-serif" font-weight="700" '
        f'font-size="{11 if len(number) < 2 else 9}" fill="#fff">{number}</text>'
        if number
        else '<path d="M2.5 11.5 6 8l2.5 2L13 4.5" fill="none" stroke="#35c28a" stroke-width="2"/>'
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
        f'<rect width="16" height="16" rx="3" fill="{COLOURS.get(state, WELL)}"/>{drawn}</svg>'
    )
