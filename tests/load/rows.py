"""`python -m tests.load.rows DATABASE MODE NAME COUNT`: adds rows, one transaction each, and says each name once it is committed.

With `--check DATABASE`: what integrity_check says, then the names of all rows.
"""

from __future__ import annotations

import sqlite3
import sys


def main() -> None:
    if sys.argv[1] == "--check":
        check(sys.argv[2])
    else:
        add(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))


def add(path: str, mode: str, name: str, count: int) -> None:
    database = sqlite3.connect(path, isolation_level=None, timeout=120)
    database.execute(f"PRAGMA journal_mode={mode}")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS row (name TEXT PRIMARY KEY, payload BLOB)")
    for number in range(count):
        row = f"{name}-{number}"
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO row VALUES (?, zeroblob(300))", (row,))
        database.execute("COMMIT")
        sys.stdout.write(row + "\n")
        sys.stdout.flush()
    database.close()


def check(path: str) -> None:
    database = sqlite3.connect(path, isolation_level=None, timeout=120)
    sys.stdout.write(database.execute("PRAGMA integrity_check").fetchone()[0].replace("\n", " ") + "\n")
    for (name,) in database.execute("SELECT name FROM row"):
        sys.stdout.write(name + "\n")
    database.close()


if __name__ == "__main__":
    main()
