"""The gate: every route and method, tokens, scopes, cookies, hosts, bodies, logins."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from automc.errors import SpecError
from automc.service.app import make_app
from automc.service.gate import COOKIE, needed
from automc.service.login import ATTEMPTS, PER_SECONDS, Pace
from automc.service.problems import Problem
from automc.service.settings import Settings, check_bind
from automc.service.tokens import covers, digest, lifetime, mint
from automc.stores.service import ServiceStore

Make = Callable[..., TestClient]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
FREE = {("GET", "/healthz"), ("HEAD", "/healthz"), ("GET", "/readyz"), ("HEAD", "/readyz")}


def paths(app: FastAPI) -> list[str]:
    """Every path of the application, with something in the place of its parameters."""
    templates = {str(getattr(route, "path", "")) for route in app.routes}
    templates |= set(app.openapi()["paths"])
    return sorted(re.sub(r"\{[^}]+\}", "1", path) for path in templates if path)


def test_no_route_and_no_method_opens_without_a_token(app: FastAPI, client: Make, storage: str) -> None:
    found = paths(app)
    assert len(found) > 15
    nobody, store = client(None), ServiceStore(storage)
    before = store.last_events(), len(store.tokens()), store.audited(1000)
    for path in [*found, "/", "/nowhere", "/api/v1/studies/../query", "/static/x", "//", "/healthz/", "/login/x"]:
        for method in METHODS:
            if (method, path) in FREE:
                continue
            status = nobody.request(method, path).status_code
            assert status in (401, 403) or (path == "/login" and status in (422, 429)), (method, path, status)
    assert (store.last_events(), len(store.tokens()), store.audited(1000)) == before, "a stranger writes nothing"
    store.close()


def test_a_token_opens_what_its_scope_covers(app: FastAPI, client: Make) -> None:
    for path in paths(app):
        for method in ("GET", "POST", "PATCH", "DELETE"):
            for scope in ("read", "write", "admin"):
                if (method, path) in FREE or path in ("/login", "/logout"):
                    continue
                if covers(scope, needed(method, path)):
                    continue
                answer = client(scope).request(method, path)
                assert (answer.status_code, answer.json()["code"]) == (403, "scope"), (method, path, scope)
    assert client("read").get("/api/v1/studies").status_code == 200
    assert client("write").post("/api/v1/query", json={"sql": "SELECT 1"}).status_code == 403
    assert client("admin").post("/api/v1/query", json={"sql": "SELECT 1"}).status_code == 200


def test_refused_tokens(client: Make, storage: str) -> None:
    store = ServiceStore(storage)
    old, _ = mint(store, "admin", "2020-01-01T00:00:00.000Z")
    gone, token = mint(store, "admin", None)
    nobody = client(None)
    assert nobody.get("/api/v1/studies", headers={"authorization": f"Bearer {gone}"}).status_code == 200
    store.revoke(token.id)
    store.close()
    for said in (f"Bearer {old}", f"Bearer {gone}", "Bearer ", "Basic YTpi", "Bearer ü", digest(gone), "Bearer x" * 99):
        answer = nobody.get("/api/v1/studies", headers={"authorization": said.encode("latin-1")})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), said
        assert answer.headers["content-type"] == "application/problem+json"


def test_only_named_hosts_are_answered(client: Make) -> None:
    own = client("read")
    for host in ("127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765"):
        assert own.get("/api/v1/studies", headers={"host": host}).status_code == 200
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1:1.evil.example",
        "",
        "[::2]",
        "localhost@evil.example",
    ):
        answer = own.get("/healthz", headers={"host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "wrong-host"), host
    assert Settings("x", hosts=("box.lan",)).answers_to("box.lan:9")


def test_head_is_get_without_its_body(app: FastAPI, client: Make) -> None:
    own = client("read")
    for template, verbs in app.openapi()["paths"].items():
        path = template.replace("{study}", "s").replace("{number}", "0")
        if "get" not in verbs or "{" in path or path.endswith("/events") or path in ("/login", "/metrics"):
            continue
        whole, bare = own.get(path), own.head(path)
        assert bare.status_code == whole.status_code, path
        assert (bare.headers["content-type"], bare.content) == (whole.headers["content-type"], b""), path
        if whole.status_code == 200:  # a refusal names the method
            assert bare.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content)), path
    assert own.head("/api/v1/studies/none").status_code == 404
    assert own.head("/logout").status_code == 405, "no GET there"
    code = app.state.door.address().removeprefix("http://127.0.0.1:8765")
    assert own.head(code).status_code == 405
    assert own.get(code, follow_redirects=False).status_code == 303, "who only looked at the link has not used it up"


def session(app: FastAPI) -> TestClient:
    browser = TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False)
    app.state.door.pace = Pace()
    answer = browser.get(app.state.door.address().removeprefix("http://127.0.0.1:8765"))
    assert answer.status_code == 303
    said = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in said.split(";")}
    return browser


def test_the_printed_address_opens_one_session_once(app: FastAPI) -> None:
    address = app.state.door.address().removeprefix("http://127.0.0.1:8765")
    app.state.door.pace = Pace()
    browser = TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False)
    assert browser.get("/login?code=wrong").status_code == 401
    assert browser.get(address).status_code == 303
    assert browser.get("/api/v1/studies").status_code == 200
    assert TestClient(app, base_url="http://127.0.0.1:8765").get(address).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "https://127.0.0.1:8765"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://127.0.0.1:8765"}, 200),
    ],
)
def test_a_cookie_changes_something_for_its_own_pages_only(app: FastAPI, headers: dict[str, str], status: int) -> None:
    browser = session(app)
    assert browser.get("/api/v1/studies", headers=headers).status_code == 200, "reading gives nothing to other sites"
    answer = browser.post("/api/v1/query", json={"sql": "SELECT 1 AS one"}, headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == "foreign-origin"
    assert "access-control-allow-origin" not in answer.headers


def test_a_session_ends(app: FastAPI) -> None:
    browser = session(app)
    held = browser.cookies[COOKIE]
    assert browser.post("/logout", headers={"sec-fetch-site": "same-origin"}).status_code == 204
    browser.cookies.set(COOKIE, held)
    assert browser.get("/api/v1/studies").status_code == 401


def test_a_token_opens_a_session_of_its_scope(app: FastAPI, secrets: dict[str, str]) -> None:
    app.state.door.pace = Pace()
    browser = TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False)
    assert browser.post("/login", json={"token": "automc_no"}).status_code == 401
    evil = {"origin": "http://evil.example"}
    assert browser.post("/login", json={"token": secrets["read"]}, headers=evil).status_code == 403
    assert browser.post("/login", json={"token": secrets["read"]}).status_code == 303
    asked = browser.post("/api/v1/query", json={"sql": "SELECT 1"}, headers={"sec-fetch-site": "same-origin"})
    assert (asked.status_code, asked.json()["code"]) == (403, "scope")


def test_logins_are_slowed_down(app: FastAPI) -> None:
    app.state.door.pace = Pace()
    browser = TestClient(app, base_url="http://127.0.0.1:8765")
    found = [browser.post("/login", json={"token": "x"}) for _ in range(ATTEMPTS + 2)]
    assert [answer.status_code for answer in found] == [401] * ATTEMPTS + [429] * 2
    assert 0 < int(found[-1].headers["retry-after"]) <= PER_SECONDS + 1
    app.state.door.pace = Pace()


def test_tries_are_forgotten_after_a_while() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(ATTEMPTS):
        pace.check("a")
    pace.check("b")
    with pytest.raises(Problem, match="too many logins"):
        pace.check("a")
    now[0] = PER_SECONDS
    pace.check("a")


def test_bodies_have_a_size(client: Make, app: FastAPI) -> None:
    writer = client("admin")
    for body in (b"x" * ((1 << 20) + 1), (b"x" * 70_000 for _ in range(20))):
        answer = writer.post("/api/v1/query", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


@pytest.mark.parametrize(
    "body",
    ['{"sql": NaN}', '{"rows": Infinity, "sql": ""}', '{"sql": "a", "sql": "b"}', "[" * 100_000, '{"sql": ', b"\xff{}"],
)
def test_what_is_no_json_is_refused(client: Make, body: str | bytes) -> None:
    answer = client("admin").post("/api/v1/query", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-json")


def test_every_answer_guards_itself(client: Make) -> None:
    for answer in (client("read").get("/api/v1/studies"), client(None).get("/x"), client(None).get("/healthz")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_what_was_changed_is_audited(client: Make, storage: str) -> None:
    client("admin").post("/api/v1/query", json={"sql": "DELETE FROM automc_token"})
    found = client("admin").get("/api/v1/audit", params={"limit": 1}).json()["audit"][0]
    assert (found["action"], found["status"], len(found["token"])) == ("POST /api/v1/query", 422, 8)


def test_a_service_that_reads_only(storage: str, secrets: dict[str, str]) -> None:
    with TestClient(make_app(Settings(storage, read_only=True, drives=False)), base_url="http://localhost") as found:
        head = {"authorization": f"Bearer {secrets['admin']}"}
        assert found.get("/api/v1/studies", headers=head).status_code == 200
        answer = found.post("/api/v1/studies", json={}, headers=head)
        assert (answer.status_code, answer.json()["code"]) == (403, "read-only")


def test_tokens_last_as_long_as_they_say() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert lifetime("30d", now) == "2026-01-31T00:00:00.000Z"
    assert lifetime("45m", now) == "2026-01-01T00:45:00.000Z"
    assert lifetime("never") is None
    for text in ("0d", "3", "d", "-1d", "9999999d", "999999w", "1y"):
        with pytest.raises(SpecError, match="must read 30d"):
            lifetime(text)


def test_other_machines_are_let_in_with_tls_only() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        check_bind(host, tls=False, plain=False)
    for host in ("0.0.0.0", "::", "10.0.0.7", "box.lan"):
        with pytest.raises(SpecError, match=f"--host {host}: others could read tokens"):
            check_bind(host, tls=False, plain=False)
        check_bind(host, tls=True, plain=False)
        check_bind(host, tls=False, plain=True)


def test_a_body_that_does_not_come_is_not_waited_for(storage: str, secrets: dict[str, str]) -> None:
    from test_service_events import Served

    with Served(Settings(storage, port=0, drives=False, body_seconds=0.3)) as served:
        host, port = served.socket.getsockname()
        for declared in ("content-length: 50", "transfer-encoding: chunked"):
            with socket.create_connection((host, port), timeout=20) as line:
                head = f"POST /api/v1/query HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {secrets['admin']}\r\n"
                line.sendall(f"{head}content-type: application/json\r\n{declared}\r\n\r\n".encode())
                answer = b"".join(iter(lambda: line.recv(10_000), b""))
            assert answer.startswith(b"HTTP/1.1 408"), answer
            assert b'"code":"too-slow"' in answer


def dribbled(line: socket.socket, text: bytes) -> float:
    """Send a byte now and then, until the other side has closed; how many seconds that took."""
    began = time.monotonic()
    line.settimeout(0.05)
    for place in range(len(text)):
        try:
            line.sendall(text[place : place + 1])
            assert line.recv(1) == b"", "a head that never came was answered"
            break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began


def test_a_head_that_dribbles_is_not_waited_for(storage: str) -> None:
    from test_service_events import Served

    with Served(Settings(storage, port=0, drives=False, head_seconds=0.5)) as served:
        at = served.socket.getsockname()
        whole = f"GET /healthz HTTP/1.1\r\nhost: {at[0]}\r\n".encode()
        with socket.create_connection(at, timeout=20) as line:
            assert 0.4 < dribbled(line, whole + b"x: y\r\n" * 1_000) < 20
        with socket.create_connection(at, timeout=20) as line:
            line.settimeout(20)
            assert closed(line), "nor one of which nothing ever comes"
        with socket.create_connection(at, timeout=20) as line:
            for _ in range(2):
                line.settimeout(20)
                line.sendall(whole + b"\r\n")
                answer = b""
                while not answer.endswith(b"}"):
                    answer += line.recv(10_000)
                assert answer.startswith(b"HTTP/1.1 200")
                time.sleep(0.7)  # between requests a connection may be silent for longer
            assert 0.4 < dribbled(line, whole + b"x: y\r\n" * 1_000) < 20


def closed(line: socket.socket) -> bool:
    try:
        return line.recv(1) == b""
    except ConnectionError:
        return True
