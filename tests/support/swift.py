"""OpenStack Swift with its S3 interface in a folder: one node that keeps each object once, and the proxy."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.stores import SECRET_KEY, RunningStore, Servers, free_ports, wait_for_http

SWIFT = Path(__file__).resolve().parents[2] / ".venv-swift" / "bin"
"""Made by `scripts/setup --tests`: Swift pins what it is built on, so it has an environment of its own."""

LAUNCH = """
import ctypes, os, signal, sys
import swift.account.server, swift.common.middleware.s3api.s3api, swift.container.server, swift.obj.server, swift.proxy.server
from swift.common.ring import RingBuilder
from swift.common.wsgi import run_wsgi

def serve(name):
    sys.exit(run_wsgi(f"{folder}/etc/{name}.conf", f"{name}-server"))

folder, *ports = sys.argv[1:]
parent = os.getpid()
for name, port in zip(("object", "container", "account"), ports):
    builder = RingBuilder(4, 1, 1)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "disk", "weight": 1})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/etc/{name}.ring.gz")
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with the proxy
        if os.getppid() == parent:
            serve(name)
        sys.exit()
serve("proxy")
"""
"""All servers from one interpreter that has imported them once: the rings, then a child for each, and the proxy itself."""
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
pipeline = catch_errors gatekeeper healthcheck listing_formats s3api tempauth copy slo dlo versioned_writes symlink proxy-server
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
    names = ("object", "container", "account", "proxy")
    for name, port in zip(names, ports, strict=True):
        text = PROXY if name == "proxy" else SERVER
        written = text.format(folder=folder, user=user, port=port, name=name, secret=SECRET_KEY)
        (folder / "etc" / f"{name}.conf").write_text(written)
    try:
        servers.start(str(SWIFT / "python"), "-c", LAUNCH, str(folder), *map(str, ports[:3]))
        for port in ports:
            wait_for_http(f"http://127.0.0.1:{port}/healthcheck", servers)
    except BaseException:
        servers.stop()
        raise
    return RunningStore("swift", f"http://127.0.0.1:{ports[-1]}", folder, servers)
