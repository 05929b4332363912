"""What every live test has: a session that lasts as long as the test, whatever the hour."""

import pytest


@pytest.fixture(autouse=True)
def no_roll(nothing_of_the_users: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """The commands' session does not roll over. Tests of the roll say when it does."""
    monkeypatch.setenv("SESSION_ROLL", "off")
