"""`python -m remote.server --data DIR`: the service, for tests and scripts; people use `aloft serve`.

The first line on stdout is JSON and says where the service listens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from remote.server.app import CannotListen, run
from remote.server.folder import DataFolderError
from remote.server.logs import configure
from remote.server.service import create_invitation
from remote.server.settings import load_config


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m remote.server")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML (docs/configuration.md)")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--database")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--public-url")
    parser.add_argument("--registration", choices=("open", "invite", "closed"))
    parser.add_argument("--quota", type=int, dest="quota_bytes", help="bytes of a new account")
    parser.add_argument("--max-devices", type=int)
    parser.add_argument("--password-memory", type=int, dest="password_memory_kib", help="of argon2id, in KiB")
    parser.add_argument("--patience", type=float, dest="patience_seconds", help="seconds between two pieces of a body")
    parser.add_argument("--invite", action="store_true", help="print an invitation code (also while the service runs), and end")
    options = parser.parse_args()
    try:
        return _serve(options)
    except (DataFolderError, CannotListen, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _serve(options: argparse.Namespace) -> int:
    given = {key: value for key, value in vars(options).items() if key not in ("config", "invite")}
    config = load_config(options.config, os.environ, given)
    if options.invite:
        sys.stdout.write(create_invitation(config) + "\n")
    else:
        configure(config.log_format)
        run(config, on_ready=_say_ready)
    return 0


def _say_ready(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
