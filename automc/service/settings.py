"""How a service runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from automc.errors import SpecError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Settings:
    """What ``automc serve`` was told, and the limits of a request.

    Attributes:
        storage: the trial database. host, port: where it listens; hosts: further names it answers to.
        read_only: nothing can be changed. tls: whether it speaks HTTPS.
        body_bytes, upload_bytes: of a request's body; of an uploaded file. head_seconds, body_seconds: until the head
            of a request is there, and until its body is.
        build_seconds: until a study is checked or made. drives: whether drivers are started and looked after.
    """

    storage: str
    host: str = "127.0.0.1"
    port: int = 8765
    hosts: tuple[str, ...] = ()
    read_only: bool = False
    tls: bool = False
    body_bytes: int = 1 << 20
    upload_bytes: int = 512 << 20
    head_seconds: float = 20.0
    body_seconds: float = 20.0
    build_seconds: float = 600.0
    drives: bool = True

    @property
    def supervises(self) -> bool:
        """Whether it starts drivers and does exports; one that reads only changes nothing in this way either."""
        return self.drives and not self.read_only

    @property
    def origin(self) -> str:
        """The address to type into a browser; of a service that listens everywhere, its first other name."""
        name = next(iter(self.hosts), "localhost") if self.host in EVERYWHERE else self.host
        host = f"[{name}]" if ":" in name else name
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def answers_to(self, host: str) -> bool:
        """Whether a Host header names this service, whatever its port."""
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]{1,5})?", host)
        if found is None:
            return False
        name = found[1] or found[2]
        own = (*self.hosts, self.host, *(LOOPBACK if is_loopback(self.host) else ()))
        return name.lower() in {known.lower() for known in own}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(host: str, tls: bool, plain: bool) -> None:
    """Raises SpecError where tokens would cross a network that anybody may listen to."""
    if not (is_loopback(host) or tls or plain):
        raise SpecError(
            f"--host {host}: others could read tokens on their way; give --tls-cert and --tls-key, "
            "or --plain-http where something in front of it encrypts"
        )
