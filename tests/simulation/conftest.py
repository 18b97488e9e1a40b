"""A service, and two devices of one account that do what a test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.accountapi import DeviceLogin, LoginRequest, RegisterRequest
from remote.server.config import ServerConfig
from remote.server.devices import ALL_SCOPES, Caller
from remote.server.service import Service, open_service
from tests.simulation.ledger import Ledger
from tests.simulation.toys import Toy, World

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    opened = open_service(ServerConfig(data=tmp_path_factory.mktemp("service"), password_memory_kib=64))
    yield opened
    opened.close()


@pytest.fixture
def world(service: Service, tmp_path: Path) -> Iterator[World]:
    account = service.accounts.register(RegisterRequest(email=f"{tmp_path.name}@example.org", password=PASSWORD))
    ledger = Ledger()
    ledger.service_at(service.config.data, account.space)
    toys = []
    for name in ("ada", "bob"):
        device = DeviceLogin(installation=name.encode().ljust(16), name=name)
        login = LoginRequest(email=account.email, password=PASSWORD, device=device)
        caller = Caller(account.id, service.devices.login(account, login).device.id, ALL_SCOPES)
        toys.append(Toy(name, tmp_path, service, caller, account.space, ledger))
    yield World(ledger, service, *toys)
    for toy in toys:
        toy.close()
    ledger.close()
