"""One database, used by several processes. `python -m tests.load.rows`

--make DATABASE MODE         an empty table, in this journal mode
--add DATABASE NAME COUNT    adds rows, one transaction each, and says each row's name once it is committed
--check DATABASE             says what integrity_check says, then the names of all rows
"""

from __future__ import annotations

import sqlite3
import sys

BUSY_SECONDS = 120.0


def main() -> None:
    action, path, *arguments = sys.argv[1:]
    database = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    database.execute("PRAGMA synchronous=FULL")
    if action == "--make":
        database.execute(f"PRAGMA journal_mode={arguments[0]}")
        database.execute("CREATE TABLE row (name TEXT PRIMARY KEY, payload BLOB)")
    elif action == "--add":
        add(database, arguments[0], int(arguments[1]))
    else:
        check(database)
    database.close()


def add(database: sqlite3.Connection, name: str, count: int) -> None:
    for number in range(count):
        row = f"{name}-{number}"
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO row VALUES (?, zeroblob(300))", (row,))
        database.execute("COMMIT")
        say(row)


def check(database: sqlite3.Connection) -> None:
    say(database.execute("PRAGMA integrity_check").fetchone()[0].replace("\n", " "))
    for (name,) in database.execute("SELECT name FROM row"):
        say(name)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
