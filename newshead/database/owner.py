"""Which newshead a database belongs to: two would move each other's session. Functions block."""

import socket
import uuid
from pathlib import Path
from typing import Final, NamedTuple

from newshead.database.connection import Database

# One that has not written for so long has died, or cannot reach the database.
SILENT_S: Final = 15
RENEW_EVERY_S: Final = 5.0

# By the database's clock, like all that is compared with it.
WRITE: Final = """
    INSERT INTO News.owner (id, host, folder, timestamp, ended)
    SELECT {id:String}, {host:String}, {folder:String}, now64(3), {ended:UInt8}"""

OWNERS: Final = """
    SELECT id, host, folder, min(timestamp) AS began
    FROM News.owner
    GROUP BY id, host, folder
    HAVING max(ended) = 0 AND max(timestamp) > now64(3) - toIntervalSecond({silent_s:UInt32})
    ORDER BY began, id"""


class OwnedError(Exception):
    """Another newshead works with the database; the text says which."""


class Owner(NamedTuple):
    """A newshead that works with a database."""

    id: str
    host: str
    folder: str

    @classmethod
    def here(cls) -> "Owner":
        """Return this process."""
        return cls(uuid.uuid4().hex, socket.gethostname(), str(Path.cwd()))


def own(database: Database, owner: Owner) -> None:
    """Make a database one's own.

    Raises
    ------
    OwnedError
        It is another's, of another host or folder. In the same folder there is no other: its lock
        is ours.
    """
    renew(database, owner)
    # Of two that start at once, the first to have written goes on.
    for owner_id, host, folder, _ in database.rows(OWNERS, silent_s=SILENT_S):
        if owner_id == owner.id:
            return
        if (host, folder) != (owner.host, owner.folder):
            give_up(database, owner)
            raise OwnedError(
                f"Another newshead works with this database: on {host}, in {folder}. Stop that "
                "one, or name another database."
            )


def renew(database: Database, owner: Owner) -> None:
    """Say that an owner still works with its database."""
    database.client.command(WRITE, parameters=owner._asdict() | {"ended": 0})


def give_up(database: Database, owner: Owner) -> None:
    """Say that an owner has ended."""
    database.client.command(WRITE, parameters=owner._asdict() | {"ended": 1})
