"""automc serve and automc token, as somebody types them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from automc.cli import main


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_tokens_are_shown_once_listed_and_revoked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    at = ("--storage", str(tmp_path / "a.db"))
    code, _, said = call(capsys, "token", "list", *at)
    assert (code, list(tmp_path.iterdir())) == (5, []), "looking makes no database"
    assert "there is no such trial database" in said
    code, secret, said = call(capsys, "token", "create", "--scope", "write", "--label", "laptop", *at)
    assert code == 0
    assert secret.startswith("automc_")
    assert len(secret.strip()) > 45
    assert "it is not shown again" in said
    made = json.loads(call(capsys, "token", "create", "--expires", "never", "--json", *at)[1])
    assert (made["scope"], made["expires"]) == ("read", None)
    (first, second) = json.loads(call(capsys, "token", "list", "--json", *at)[1])
    assert (first["label"], first["valid"], second["id"]) == ("laptop", True, made["id"])
    assert "no token 'nobody'" in call(capsys, "token", "revoke", "nobody", *at)[2]
    text = call(capsys, "token", "list", *at)[1]
    assert secret.strip() not in text
    assert "sha256" not in text
    assert call(capsys, "token", "revoke", first["id"], *at)[0] == 0
    assert [row["valid"] for row in json.loads(call(capsys, "token", "list", "--json", *at)[1])] == [False, True]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("token", "create", "--scope", "root"), "--scope root: must be one of read, write, admin"),
        (("token", "create", "--expires", "soon"), "--expires soon: must read 30d"),
        (("serve", "--host", "0.0.0.0"), "--host 0.0.0.0: others could read tokens on their way; give --tls-cert"),
        (("serve", "--tls-cert", "x.pem"), "--tls-cert and --tls-key: give both or none"),
        (("serve", "--port", "0", "--tls-cert", "x.pem", "--tls-key", "y.pem"), "--tls-cert x.pem: cannot be used"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    code, out, err = call(capsys, *words, "--storage", str(tmp_path / "a.db"))
    assert code in (2, 5)
    assert out == ""
    assert err.startswith(f"automc: {said}")
    assert err.count("\n") == 1


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = call(capsys, "serve", "--port", port, "--storage", str(tmp_path / "a.db"))
    assert code == 2
    assert f"--port {port}: Address already in use; give another --port" in err


def test_serve_prints_an_address_that_logs_in_and_ends_on_a_signal(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "automc.cli", "serve", "--port", "0", "--json", "--storage", str(tmp_path / "a.db")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        assert served.stderr is not None
        text = ""
        while not text.rstrip().endswith("}"):
            text += served.stdout.readline()
        said = json.loads(text)
        opener = urllib.request.build_opener(_Stay())
        answer = opener.open(said["login"], timeout=20)
        assert answer.status == 303
        cookie = answer.headers["set-cookie"].partition(";")[0]
        asked = urllib.request.Request(f"{said['url']}/api/v1/studies", headers={"cookie": cookie})
        with urllib.request.urlopen(asked, timeout=20) as found:
            assert json.load(found) == {"studies": []}
        served.send_signal(signal.SIGTERM)
        served.wait(30)
        err = served.stderr.read()
    assert "Ctrl-C ends it, and searches go on" in err
    assert "Traceback" not in err


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are answers."""

    def http_error_303(self, request: object, file: object, code: int, message: str, headers: object) -> object:
        return file
