"""Where the keys are that sign tokens and links: in the data folder of a service that is alone, else in the database."""

from __future__ import annotations

from collections.abc import Callable

from remote.server.config import ServerConfig
from remote.server.database import keys as rows
from remote.server.database.engine import Database
from remote.server.folder import DataFolder, Key, new_key


def service_key(config: ServerConfig, folder: DataFolder, database: Database, name: str, random: Callable[[int], bytes]) -> Key:
    """The key called `name`, made if there is none: the same for all processes on one database."""
    if config.database is None:
        return folder.key(name, random)
    with database.alone() as connection:
        key = rows.find(connection, name)
        if key is None:
            key = new_key(random)
            rows.add(connection, name, key)
        return key
