"""A service from Python: ``automc.connect(url, token)`` has the studies of a server, with the methods of local ones.

Only the standard library speaks here; no pickle is read.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from automc import errors as e
from automc.errors import AutomcError, SpecError, StoreError

if TYPE_CHECKING:
    import pandas as pd

    from automc.service.remote import RemoteStudy

TOKEN = "AUTOMC_TOKEN"
"""The environment variable of a token."""

_CHUNK = 1 << 20


class Refused(StoreError):
    """What a server answered. ``status`` of HTTP, ``problem``: the members of the answer."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"the server answered {status}"))
        self.status, self.problem = status, problem


class Client:
    """A server.

    Args:
        url: such as ``http://127.0.0.1:8765``. token: else that of the environment variable ``AUTOMC_TOKEN``.
        seconds: until an answer begins, at most.
        tls: of certificates of your own, as ``ssl.create_default_context(cafile=...)`` makes it.

    Raises:
        SpecError: no URL of HTTP, or no token.
    """

    def __init__(
        self, url: str, token: str | None = None, seconds: float = 700.0, tls: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SpecError(f"connect: {url!r} must be a URL such as http://127.0.0.1:8765")
        self.url, self._seconds, self._tls = url.rstrip("/"), seconds, tls
        self._token = token or os.environ.get(TOKEN, "")
        if self._token and not re.fullmatch(r"[\x21-\x7e]+", self._token):
            raise SpecError(f"connect: a token has plain characters and no space; the one given or in {TOKEN} has not")
        if not self._token:
            raise SpecError(f"connect: give a token, or set {TOKEN}; 'automc token create' makes one on the server")

    def studies(self) -> pd.DataFrame:
        """One row a study, as ``automc.studies`` has it, and its state."""
        import pandas as pd

        rows = self.get("/studies")["studies"]
        names = {"name": "study", "created": "created", "proposer": "proposer", "finished": "finished"}
        names |= {"budget": "budget", "state": "state"}
        return pd.DataFrame(
            [
                {**{own: row[key] for key, own in names.items()}, "failed": row["counts"].get("failed", 0)}
                for row in rows
            ]
        )

    def open_study(self, name: str) -> RemoteStudy:
        """A study that exists. Raises UnknownStudy."""
        from automc.service.remote import RemoteStudy

        found = RemoteStudy(name, self)
        found.spec  # noqa: B018  (asks the server, which refuses an unknown name)
        return found

    def search(self, document: Mapping[str, Any], key: str = "") -> RemoteStudy:
        """Make a study and let the server search it.

        Args:
            document: what a study file says. key: with the same one a repetition makes no second study.

        Raises:
            SpecError, StudyExists: as the server says.
        """
        self.post("/studies", document, **({"idempotency-key": key} if key else {}))
        return self.open_study(str(document["name"]))

    def check(self, document: Mapping[str, Any]) -> Any:
        """Layers, space and cost of a study. Raises as ``search``."""
        return self.post("/studies:validate", document)

    def offers(self) -> Any:
        """What a study may name, by kind."""
        return self.get("/offers")

    def query(self, sql: str, rows: int = 1_000, seconds: float = 10.0) -> pd.DataFrame:
        """The answer to one SELECT over all studies; needs an admin's token."""
        import pandas as pd

        found = self.post("/query", {"sql": sql, "rows": rows, "seconds": seconds})
        frame = pd.DataFrame(found["rows"], columns=found["columns"])
        frame.attrs["more"] = found["more"]
        return frame

    def upload(self, path: Path) -> str:
        """Send weights, a safetensors file; what a model then says under ``weights``."""
        with Path(path).open("rb") as file:
            size = {"content-length": str(os.fstat(file.fileno()).st_size)}
            with self._open("POST", "/uploads", file, {"content-type": "application/octet-stream", **size}) as answer:
                return f"upload:{json.load(answer)['sha256']}"

    def download(self, sha256: str, path: Path) -> None:
        """Take a file by its content, and check it. Raises StoreError: what came is something else."""
        import hashlib

        digest, partial = hashlib.sha256(), path.with_name(f"{path.name}.part")
        with self._open("GET", f"/artifacts/{sha256}") as answer, partial.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            partial.unlink()
            raise StoreError(f"{path}: what came is not the file {sha256[:16]}...; try again")
        partial.replace(path)

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """The events of a stream, as they come."""
        data = ""
        with self._open("GET", path) as answer:
            for line in answer:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "data":
                    data = value
                elif not key and data:
                    yield json.loads(data)
                    data = ""

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of an answer; parameters that are None or empty are left out."""
        asked = urlencode({key: value for key, value in params.items() if value not in (None, "")})
        with self._open("GET", f"{path}?{asked}" if asked else path) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """The JSON of an answer to JSON."""
        sent = json.dumps({} if body is None else body, allow_nan=False).encode()
        with self._open("POST", path, sent, {"content-type": "application/json", **headers}) as answer:
            return json.load(answer)

    def _open(
        self, method: str, path: str, body: bytes | IO[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Raises the error of automc that the server's problem stands for; else Refused."""
        head = {"authorization": f"Bearer {self._token}", **(headers or {})}
        asked = urllib.request.Request(f"{self.url}/api/v1{path}", body, head, method=method)
        try:
            return urllib.request.build_opener(
                urllib.request.HTTPSHandler(context=self._tls), _NoRedirects(), urllib.request.ProxyHandler({})
            ).open(asked, timeout=self._seconds)
        except urllib.error.HTTPError as answer:
            with answer:
                raise _told(answer.code, answer.read(_CHUNK)) from None
        except OSError as error:
            said = getattr(error, "reason", None) or error
            raise StoreError(f"{self.url}: cannot be reached: {said}; does 'automc serve' run there?") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token goes to the server that was named, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def connect(url: str, token: str | None = None, **more: Any) -> Client:
    """The studies of a server; see ``Client``."""
    return Client(url, token, **more)


def segment(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def _told(status: int, body: bytes) -> AutomcError:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    name = "".join(word.capitalize() for word in str(problem.get("code", "")).split("-"))
    kind = getattr(e, name, None)
    if isinstance(kind, type) and issubclass(kind, AutomcError):
        lines = [f"{one['pointer'].strip('/').replace('/', '.')}: {one['detail']}" for one in problem.get("errors", ())]
        return kind("\n".join(line.removeprefix(": ") for line in lines) or problem["detail"])
    return Refused(status, problem)
