"""`python -m remote.server --data DIR`: the service, for tests and scripts; people use `aloft serve`.

The first line on stdout is JSON and says where the service listens.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from remote.server.app import CannotListen, run
from remote.server.config import GIB, ServerConfig
from remote.server.folder import DataFolderError
from remote.server.service import create_invitation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m remote.server")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8427)
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--public-url")
    parser.add_argument("--registration", choices=("open", "invite", "closed"), default="open")
    parser.add_argument("--quota", type=int, default=100 * GIB, help="bytes of a new account")
    parser.add_argument("--max-devices", type=int, default=5)
    parser.add_argument("--password-memory", type=int, default=64 * 1024, help="of argon2id, in KiB")
    parser.add_argument("--patience", type=float, default=60, help="seconds between two pieces of a body")
    parser.add_argument("--invite", action="store_true", help="print an invitation code (also while the service runs), and end")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        return _serve(options)
    except (DataFolderError, CannotListen, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _serve(options: argparse.Namespace) -> int:
    config = ServerConfig(
        data=options.data,
        host=options.host,
        port=options.port,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        public_url=options.public_url,
        registration=options.registration,
        quota_bytes=options.quota,
        max_devices=options.max_devices,
        password_memory_kib=options.password_memory,
        patience_seconds=options.patience,
    )
    if options.invite:
        sys.stdout.write(create_invitation(config) + "\n")
    else:
        run(config, on_ready=_say_ready)
    return 0


def _say_ready(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
