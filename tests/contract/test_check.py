"""`aloft serve --check`: what is well is said to be well, and each thing that is wrong is found, with what to mend."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import httpx
import pytest
import typer

from fs.cli.serve import check_settings
from remote.server.certificate import examine_certificate
from remote.server.config import ObjectsConfig, ServerConfig
from remote.server.examine import examine
from remote.server.findings import Finding, State
from remote.server.keys import Key
from remote.server.objects.endpoint import ObjectEndpoint
from remote.server.objects.local import LocalStore
from remote.server.objects.opening import open_local
from remote.server.objects.probe import Answer, Probe
from remote.server.objects.s3 import S3Store
from remote.server.service import open_service
from tests.support.postgresql import Cluster, name_of
from tests.support.stores import PATIENCE, RunningStore
from tests.support.wire import Clock

ALOFT = Path(sys.executable).with_name("aloft")
TLS = Path(__file__).resolve().parents[1] / "remote" / "tls"


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state is not State.OK]


def failures_about(config: ServerConfig, subject: str) -> list[Finding]:
    found = [finding for finding in examine(config) if finding.state is State.FAILED]
    assert {finding.subject for finding in found} == {subject}, found
    assert all(finding.mend for finding in found)
    return found


def test_a_new_service_is_well(tmp_path: Path) -> None:
    findings = list(examine(ServerConfig(tmp_path / "data")))
    assert wrong(findings) == []
    assert list(tmp_path.iterdir()) == [], "nothing is left of it"


def test_a_service_that_runs_is_not_disturbed(tmp_path: Path) -> None:
    config = ServerConfig(tmp_path / "data")
    service = open_service(config)
    try:
        half = config.data / "objects" / "incoming" / "half"
        half.write_bytes(b"on its way")
        assert wrong(list(examine(config))) == []
        assert half.exists()
    finally:
        service.close()


def test_a_real_store_is_well(real: RunningStore, tmp_path: Path) -> None:
    settings = real.settings()
    settings.credentials_file.chmod(0o600)
    findings = list(examine(ServerConfig(tmp_path / "data", s3=settings)))
    assert wrong(findings) == []
    said = "\n".join(finding.says for finding in findings)
    for trial in ("a wrong body", "too short", "too long", "expired", "no link", "gives the object back", "deletes", "agrees"):
        assert trial in said


def test_the_command_says_what_to_mend(ceph: RunningStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ceph.settings(bucket="nowhere")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "ALOFT_"))}
    environment |= {"ALOFT_S3_BUCKET": settings.bucket, "ALOFT_S3_ENDPOINT": ceph.url, "ALOFT_DATA": str(tmp_path)}
    environment |= {"ALOFT_S3_CREDENTIALS_FILE": str(settings.credentials_file)}
    text = subprocess.run([ALOFT, "serve", "--check"], env=environment, capture_output=True, text=True)
    assert text.returncode == 1
    assert "failed  object store: the object store answered 404 (NoSuchBucket)" in text.stdout
    assert "to mend: see that it runs, and that its address, bucket" in text.stdout
    with pytest.raises(typer.Exit):
        check_settings(ServerConfig(tmp_path, s3=settings), json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert {finding["subject"] for finding in document["findings"]} == {"configuration", "database", "object store"}


def test_wrong_credentials_and_a_store_that_is_away_are_found(ceph: RunningStore, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n")
    file.chmod(0o600)
    (refused,) = failures_about(ServerConfig(tmp_path, s3=ceph.settings(credentials_file=file)), "object store")
    assert "403" in refused.says
    nowhere = ceph.settings(endpoint="http://127.0.0.1:9", credentials_file=file)
    (away,) = failures_about(ServerConfig(tmp_path, s3=nowhere), "object store")
    assert "does not answer" in away.says
    nothing = ceph.settings(credentials_file=tmp_path / "nothing", profile="other")
    assert {finding.subject for finding in examine(ServerConfig(tmp_path, s3=nothing)) if finding.mend} == {
        "configuration",
        "object store",
    }


# ------------------------------------------------------------------------------------------------ stores that are not good

Sender = Callable[[str, str, Mapping[str, str], bytes], Answer]


def probed(tmp_path: Path, spoil: Callable[[Sender, LocalStore], Sender]) -> list[str]:
    """What a probe finds wrong with a store to which requests go through `spoil`."""
    clock = Clock()
    store = open_local(ServerConfig(tmp_path), Key("k", b"s" * 32), clock, os.urandom)

    def send(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=ObjectEndpoint(store))) as http:
                return await http.request(method, url, headers=headers, content=body)

        answer = anyio.run(ask)
        clock.advance(1)
        return Answer(answer.status_code, answer.headers, answer.content)

    probe = Probe(store, "http://store.test", spoil(send, store), os.urandom, expiry_seconds=2)
    return [finding.says for finding in probe.run() if finding.state is not State.OK]


def test_a_good_store_passes(tmp_path: Path) -> None:
    assert probed(tmp_path, lambda send, store: send) == []


def test_a_store_that_takes_everything_is_found_out(tmp_path: Path) -> None:
    def spoil(send: Sender, store: LocalStore) -> Sender:
        def careless(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
            answer = send(method, url, headers, body)
            return Answer(200, answer.headers, answer.body) if answer.refused else answer

        return careless

    found = probed(tmp_path, spoil)
    for lack in ("a wrong body", "too short", "too long", "expired", "no link"):
        assert any(lack in says for says in found), found


def test_a_store_that_compares_only_the_md5_is_found_out(ceph: RunningStore) -> None:
    """Ceph compares both; here it is made to look as if it did not."""

    def send(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        answer = httpx.request(method, url, headers=headers, content=body, trust_env=False, timeout=PATIENCE)
        is_old = answer.status_code == 400 and "Content-MD5" not in headers
        return Answer(200 if is_old else answer.status_code, answer.headers, answer.content)

    for content_md5, mend in ((False, ["set content_md5 = true in [s3]"]), (True, [])):
        store = S3Store(ceph.settings(content_md5=content_md5))
        found = list(Probe(store, "", send, os.urandom).run())
        assert [finding.mend for finding in wrong(found)] == mend
        store.close()


def test_a_clock_that_is_wrong_is_found(tmp_path: Path) -> None:
    def spoil(send: Sender, store: LocalStore) -> Sender:
        def elsewhere(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
            answer = send(method, url, headers, body)
            return Answer(answer.status, {"date": "Thu, 26 Nov 2020 01:50:08 GMT"}, answer.body)

        return elsewhere

    (says,) = probed(tmp_path, spoil)
    assert "ahead of that of the object store" in says


# --------------------------------------------------------------------------------------------- configuration, database, TLS


def test_folders_that_lack_and_a_lost_master_key_are_found(tmp_path: Path) -> None:
    disks = tuple(tmp_path / name for name in ("one", "two"))
    config = ServerConfig(tmp_path / "data", objects=ObjectsConfig(folders=disks))
    assert not any(finding.state is State.FAILED for finding in examine(config)), "a folder is made at the start"
    open_local(config, Key("k", b"s" * 32), Clock(), os.urandom)
    assert not any(finding.state is State.FAILED for finding in examine(config))
    disks[0].rename(tmp_path / "pulled")
    (away,) = failures_about(config, "object store")
    assert f"{disks[0]} is not there: mount its disk" in away.says
    (key := tmp_path / "data" / "master.key").rename(tmp_path / "kept")
    assert any("need the master key" in each.says for each in failures_about(config, "object store"))
    assert not key.exists(), "nothing is changed"
    (forgotten,) = failures_about(ServerConfig(tmp_path / "data"), "object store")
    assert "name all of its folders" in forgotten.says


def test_a_damaged_database_and_a_newer_one_are_found(tmp_path: Path) -> None:
    config = ServerConfig(tmp_path / "data")
    open_service(config).close()
    file = config.data / "aloft.db"
    connection = sqlite3.connect(file)
    connection.execute("UPDATE alembic_version SET version_num = 'of the future'")
    connection.commit()
    connection.close()
    (newer,) = failures_about(config, "database")
    assert "newer Aloft" in newer.says
    file.write_bytes(b"no database at all" * 1000)
    (damaged,) = failures_about(config, "database")
    assert "cannot be read" in damaged.says


def test_postgresql_is_asked(postgresql: Cluster, tmp_path: Path) -> None:
    url = postgresql.new_database()
    assert wrong(list(examine(ServerConfig(tmp_path, database=url)))) == []
    (absent,) = failures_about(ServerConfig(tmp_path, database=url.replace("/test_", "/none_")), "database")
    assert "does not exist" in absent.says
    postgresql.execute("CREATE ROLE reader LOGIN")
    (reader,) = failures_about(ServerConfig(tmp_path, database=url.replace("//postgres@", "//reader@")), "database")
    assert "may create no tables" in reader.says
    postgresql.execute("UPDATE alembic_version SET version_num = 'of the future'", name_of(url))
    (newer,) = failures_about(ServerConfig(tmp_path, database=url), "database")
    assert "newer Aloft" in newer.says


def test_what_clients_would_refuse_is_said(tmp_path: Path) -> None:
    config = ServerConfig(tmp_path, host="0.0.0.0")
    (finding,) = wrong(list(examine(config)))
    assert (finding.subject, finding.state) == ("configuration", State.WARNING)
    assert "http://" in finding.says


def test_certificates(tmp_path: Path) -> None:
    certificate, key = TLS / "cert.pem", TLS / "key.pem"
    fits, stranger = examine_certificate(certificate, key, "localhost")
    assert (fits.state, stranger.state) == (State.OK, State.WARNING)
    assert "--ca" in (stranger.mend or "")
    (mixed,) = examine_certificate(key, key, None)
    assert mixed.state is State.FAILED
    (absent,) = examine_certificate(tmp_path / "nothing", key, None)
    assert absent.state is State.FAILED


def test_a_certificate_that_has_ended_is_found(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=old"]
    subprocess.run([*command, "-keyout", key, "-out", certificate, "-days", "3"], check=True, capture_output=True)
    soon, *_ = examine_certificate(certificate, key, None)
    assert (soon.state, soon.mend) == (State.WARNING, "renew it")
    year = ["faketime", "-f", "-365d", "openssl", *command[1:], "-keyout", key, "-out", certificate, "-days", "3"]
    subprocess.run(year, check=True, capture_output=True)
    (ended,) = examine_certificate(certificate, key, None)
    assert (ended.state, ended.mend) == (State.FAILED, "renew it")
    assert "expired" in ended.says
