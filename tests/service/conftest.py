"""A service over a database with a finished study on the synthetic network, and clients with tokens of each scope."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from service_documents import BASE, document

from automc.app import runs
from automc.app.config import study_from
from automc.service.app import make_app
from automc.service.settings import Settings
from automc.service.tokens import mint
from automc.stores.service import ServiceStore


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database in which the study ``s`` is finished; shared by the tests of a file."""
    path = str(tmp_path_factory.mktemp("service") / "automc.db")
    made = runs.start(study_from(document(storage=path), "test"))
    made.run()
    made.close()
    return path


@pytest.fixture(scope="module")
def app(storage: str) -> Iterator[FastAPI]:
    made = make_app(Settings(storage, drives=False))
    with TestClient(made, base_url=BASE):  # begins and ends its life
        yield made


@pytest.fixture(scope="module")
def secrets(storage: str) -> dict[str, str]:
    """A token of each scope."""
    store = ServiceStore(storage)
    found = {scope: mint(store, scope, None)[0] for scope in ("read", "write", "admin")}
    store.close()
    return found


@pytest.fixture
def client(app: FastAPI, secrets: dict[str, str]) -> Callable[..., TestClient]:
    """A client with a token of a scope; of none with ``None``."""

    def make(scope: str | None = "read", **more: Any) -> TestClient:
        headers = {"authorization": f"Bearer {secrets[scope]}"} if scope else {}
        return TestClient(app, base_url=BASE, headers=headers, raise_server_exceptions=False, **more)

    return make


@pytest.fixture
def folder(storage: str) -> Path:
    """Where the database is."""
    return Path(os.path.dirname(storage))
