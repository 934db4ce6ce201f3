"""Commands of the service: automc serve, and the tokens that open it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.app import options as o
from automc.cli.app import app, shown, talk
from automc.errors import SpecError

if TYPE_CHECKING:
    from automc.stores.service import ServiceStore

group = typer.Typer(
    name="token",
    help="Tokens that open the service.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="where to listen")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free")]
Allowed = Annotated[list[str] | None, typer.Option("--allow-host", metavar="NAME", help="a further name; repeatable")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="nothing can be changed")]
Open = Annotated[bool, typer.Option("--open", help="open a browser")]
Cert = Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="certificate, PEM")]
Key = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="its key, PEM")]
Plain = Annotated[bool, typer.Option("--plain-http", help="other machines without TLS: something before it encrypts")]
Scope = Annotated[str, typer.Option(metavar="SCOPE", help="read, write or admin")]
Expires = Annotated[str, typer.Option(metavar="SPAN", help="30d, 12h, 45m, 2w or never")]
Label = Annotated[str, typer.Option(metavar="TEXT", help="whose it is")]
TokenId = Annotated[str, typer.Argument(metavar="ID", help="as token list shows it")]


@app.command()
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8765,
    storage: o.Storage = None,
    allow_host: Allowed = None,
    read_only: ReadOnly = False,
    tls_cert: Cert = None,
    tls_key: Key = None,
    plain_http: Plain = False,
    open_browser: Open = False,
    as_json: o.Json = False,
) -> None:
    """Serve the studies of a database over HTTP; prints an address that logs a browser in, once."""
    if (tls_cert is None) != (tls_key is None):
        raise SpecError("--tls-cert and --tls-key: give both or none")
    from dataclasses import replace

    from automc.service.app import make_app
    from automc.service.serving import listening
    from automc.service.serving import serve as run
    from automc.service.settings import Settings, check_bind

    tls = (tls_cert, tls_key) if tls_cert and tls_key else None
    check_bind(host, tls is not None, plain_http)
    asked = Settings(o.storage_of(storage), host, port, tuple(allow_host or ()), read_only, tls is not None)
    with listening(asked) as at:
        settings = replace(asked, port=at.getsockname()[1])
        made = make_app(settings)
        address = made.state.door.address()

        def started() -> None:
            shown(as_json, {"url": settings.origin, "login": address}, lambda: address)
            sys.stdout.flush()
            talk(f"serving {settings.storage} at {settings.origin}; Ctrl-C ends it, and searches go on")
            if open_browser:
                import webbrowser

                webbrowser.open(address)

        run(made, settings, at, tls, started)


@group.command("create")
def create(
    scope: Scope = "read",
    expires: Expires = "30d",
    label: Label = "",
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """Make a token; it is shown this once."""
    from automc.service.tokens import lifetime, mint

    store = _store(storage)
    secret, token = mint(store, scope, lifetime(expires), label)
    shown(as_json, {"token": secret, **_public(asdict(token))}, lambda: secret)
    talk(f"token {token.id} may {scope} until {token.expires or 'it is revoked'}; it is not shown again")


@group.command("list")
def listed(storage: o.Storage = None, as_json: o.Json = False) -> None:
    """List the tokens, not their secrets."""
    from automc.app.tables import table

    rows = [{**_public(asdict(token)), "valid": token.valid} for token in _store(storage, create=False).tokens()]
    shown(as_json, rows, lambda: table(rows) if rows else "no tokens")


@group.command("revoke")
def revoke(token: TokenId, storage: o.Storage = None, as_json: o.Json = False) -> None:
    """End a token now."""
    ended = _store(storage, create=False).revoke(token)
    shown(as_json, _public(asdict(ended)), lambda: f"token {ended.id} opens nothing since {ended.revoked}")


app.add_typer(group)


def _store(storage: str | None, create: bool = True) -> ServiceStore:
    from automc.stores.service import ServiceStore

    return ServiceStore(o.storage_of(storage), create)


def _public(token: dict[str, str | None]) -> dict[str, str | None]:
    return {name: value for name, value in token.items() if name != "sha256"}
