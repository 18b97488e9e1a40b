"""Ceph's S3 gateway in a folder, as small as it gets: a monitor, one OSD that keeps its objects in memory, the gateway.

There is no manager daemon, so what asks one (`ceph df`, `ceph pg stat`) would wait for ever: every command has a time limit.
"""

from __future__ import annotations

import subprocess
import time
import uuid
from pathlib import Path

from tests.support.stores import ACCESS_KEY, SECRET_KEY, START_SECONDS, RunningStore, Servers, free_ports, wait_for_http

CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = v1:127.0.0.1:{monitor}
ms_bind_msgr2 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
keyring = {folder}/keyring
run_dir = {folder}/run
admin_socket =
log_file = {folder}/log/$name.log
mon_cluster_log_file = {folder}/log/cluster.log
crash_dir = {folder}/crash
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_crit = 0
mon_data_avail_warn = 0
osd_crush_update_on_start = false
osd_class_update_on_start = false
osd_class_load_list = *
osd_class_default_list = *
osd_objectstore = memstore
memstore_device_bytes = 1073741824
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
osd_op_num_shards = 1
osd_op_num_threads_per_shard = 2

[mon.a]
mon_data = {folder}/mon
[osd.0]
osd_data = {folder}/osd
osd_journal = {folder}/osd/journal
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_enable_usage_log = false
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
rgw_run_sync_thread = false
rgw_crypt_require_ssl = false
rgw_crypt_s3_kms_backend = testing
rgw_crypt_s3_kms_encryption_keys = testkey=YmluCmJvb3N0CmJvb3N0LWJ1aWxkCmNlcGguY29uZgo=
"""


def start_ceph(folder: Path) -> RunningStore:
    """Start it, and return when it answers. `folder` is on a memory disk, best."""
    for name in ("run", "log", "crash", "mon", "osd"):
        (folder / name).mkdir(parents=True)
    monitor, gateway = free_ports(2)
    fsid = str(uuid.uuid4())
    configuration = folder / "ceph.conf"
    configuration.write_text(CONFIGURATION.format(fsid=fsid, folder=folder, monitor=monitor, gateway=gateway))
    servers = Servers(folder / "log")

    def run(*command: str) -> str:
        return servers.run(command[0], "-c", str(configuration), *command[1:])

    def tell(*command: str) -> None:
        """Again until it is done: a monitor that is just starting refuses commands, or drops them without an answer. Each of
        these may be given twice."""
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                servers.run("ceph", "-c", str(configuration), *command, limit=30)
                break
            except (RuntimeError, subprocess.TimeoutExpired):
                servers.check()
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    try:
        keyring = str(folder / "keyring")
        servers.run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        caps = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"]
        servers.run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *caps)
        servers.run("ceph-authtool", keyring, "--gen-key", "-n", "client.rgw.a", *caps)
        map_ = str(folder / "monmap")
        servers.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{monitor}]", map_)
        run("ceph-mon", "-i", "a", "--mkfs", "--monmap", map_, "--keyring", keyring)
        servers.start("ceph-mon", "-c", str(configuration), "-i", "a", "-f")
        osd = str(uuid.uuid4())
        tell("osd", "new", osd)
        tell("osd", "crush", "add", "osd.0", "1.0", "root=default", "host=here")
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        servers.start("ceph-osd", "-c", str(configuration), "-i", "0", "-f")
        servers.start("radosgw", "-c", str(configuration), "-n", "client.rgw.a", "--no-mon-config", "-f")
        keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]
        run("radosgw-admin", "--no-mon-config", "user", "create", "--uid", "tester", "--display-name", "tester", *keys)
        url = f"http://127.0.0.1:{gateway}"
        wait_for_http(url, servers)
    except BaseException:
        servers.stop()
        raise
    return RunningStore("ceph", url, folder, servers)
