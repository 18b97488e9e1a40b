"""OpenStack Swift with its S3 interface in a folder: one node that keeps each object once, and the proxy."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.stores import ACCESS_KEY, SECRET_KEY, RunningStore, Servers, free_ports, wait_for_http

SWIFT = Path(__file__).resolve().parents[2] / ".venv-swift" / "bin"
"""Made by `scripts/setup --tests`: Swift pins what it is built on, so it has an environment of its own."""

RINGS = """
import sys
from swift.common.ring import RingBuilder
for name, port in zip(("object", "container", "account"), sys.argv[2:]):
    builder = RingBuilder(4, 1, 1)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "disk", "weight": 1})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""
CLUSTER = """
[swift-hash]
swift_hash_path_prefix = aloft
swift_hash_path_suffix = aloft
[storage-policy:0]
name = once
default = yes
"""
SERVER = """
[DEFAULT]
swift_dir = {folder}/etc
user = {user}
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
devices = {folder}/node
mount_check = false
log_address = /nonexistent
fallocate_reserve = 0
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
PROXY = """
[DEFAULT]
swift_dir = {folder}/etc
user = {user}
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
log_address = /nonexistent
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats s3api tempauth bulk copy slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
auth_pipeline_check = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""


def start_swift(folder: Path) -> RunningStore:
    """Start it, and return when it answers."""
    for name in ("etc", "log", "node/disk"):
        (folder / name).mkdir(parents=True)
    ports = free_ports(4)
    servers = Servers(folder / "log")
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "etc" / "swift.conf").write_text(CLUSTER)
    try:
        servers.run(str(SWIFT / "python"), "-c", RINGS, str(folder / "etc"), *map(str, ports[:3]))
        for name, port in zip(("object", "container", "account", "proxy"), ports, strict=True):
            text = PROXY if name == "proxy" else SERVER
            file = folder / "etc" / f"{name}.conf"
            file.write_text(text.format(folder=folder, user=user, port=port, name=name, secret=SECRET_KEY))
            servers.start(str(SWIFT / "python"), str(SWIFT / f"swift-{name}-server"), str(file))
        url = f"http://127.0.0.1:{ports[-1]}"
        wait_for_http(f"{url}/healthcheck", servers)
        for port in ports[:-1]:
            wait_for_http(f"http://127.0.0.1:{port}/healthcheck", servers)
    except BaseException:
        servers.stop()
        raise
    return RunningStore("swift", url, ACCESS_KEY, SECRET_KEY, servers)
