"""The image and the services: what can be held without a container engine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from automc.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
IMAGE_ROOT = "/opt/automc/"
"""Where the Dockerfile puts the project."""

HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def interpolated(text: str) -> str:
    """The compose file as it is with no variable set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.fixture(scope="module")
def compose():
    return YAML(typ="safe").load(interpolated((DOCKER / "compose.yaml").read_text()))


@pytest.fixture(scope="module")
def dockerfile():
    """The instructions, one line each."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    done = subprocess.run([HADOLINT, str(DOCKER / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)


def test_everything_that_is_copied_is_there_and_not_ignored(dockerfile) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [
        word
        for name, rest in dockerfile
        if name == "COPY"
        for word in [w for w in rest.split() if not w.startswith("--")][:-1]
    ]
    assert {"pyproject.toml", "constraints.txt", "automc", "docker/entrypoint.sh"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] not in ignored


def test_what_the_package_needs_to_be_built_is_copied(dockerfile) -> None:
    copied = " ".join(rest for name, rest in dockerfile if name == "COPY")
    text = (ROOT / "pyproject.toml").read_text()
    for needed in re.findall(r'(?:readme|license-files) = \[?"([^"]+)"', text):
        assert needed in copied
    assert "search_spaces" in copied


def test_nobody_is_root_and_torch_is_the_pinned_one(dockerfile) -> None:
    users = [rest for name, rest in dockerfile if name == "USER"]
    assert users
    assert "0" not in users
    pinned = re.search(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned is not None
    assert f'"{pinned[0]}"' in " ".join(rest for name, rest in dockerfile if name == "RUN")


def test_services_wait_for_services_that_say_when_they_are_healthy(compose) -> None:
    services = compose["services"]
    waits = [(one, other) for one, service in services.items() for other in service.get("depends_on", {})]
    assert ("driver", "database") in waits
    assert ("worker", "head") in waits
    for _, other in waits:
        assert "healthcheck" in services[other]
    volumes = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert volumes == set(compose["volumes"])


def test_the_build_finds_its_files(compose) -> None:
    for name in ("head", "worker", "driver"):
        build = compose["services"][name]["build"]
        context = (DOCKER / build["context"]).resolve()
        assert context == ROOT
        assert (context / build["dockerfile"]).is_file()


def test_the_documented_command_is_one_of_automc_on_a_file_of_the_image() -> None:
    text = " ".join((DOCKER / "compose.yaml").read_text().split())
    found = re.search(r"run --rm driver (search \S+ --address auto)", text)
    assert found is not None
    command, file, *options = shlex.split(found[1])
    assert (ROOT / file.removeprefix(IMAGE_ROOT)).is_file()
    parameters = get_command(app).commands[command].params  # type: ignore[attr-defined]
    assert set(options[::2]) <= {name for parameter in parameters for name in parameter.opts}
    assert found[1] in " ".join((ROOT / "README.md").read_text().split())


def start(tmp_path: Path, *words: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the entrypoint where ``ray`` and ``automc`` only write down how they were called."""
    calls = tmp_path / "calls"
    for name in ("ray", "automc"):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\n')
        script.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(DOCKER / "entrypoint.sh"), *words],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done, calls.read_text().splitlines() if calls.exists() else []


def options_of(call: str) -> set[str]:
    return {word.split("=")[0] for word in call.split() if word.startswith("--")}


def test_a_head_and_a_worker_are_nodes_of_ray(tmp_path: Path) -> None:
    from ray.scripts.scripts import start as ray_start

    known = {name for parameter in ray_start.params for name in parameter.opts}
    done, calls = start(tmp_path, "head")
    assert (done.returncode, len(calls)) == (0, 1)
    done, calls = start(tmp_path, "worker", RAY_HEAD="head:6379", CPUS="3")
    assert done.returncode == 0
    assert "--address=head:6379" in calls[1]
    assert "--num-cpus=3" in calls[1]
    for call in calls:
        assert call.startswith("ray start ")
        assert options_of(call) <= known


def test_a_worker_without_a_head_says_what_is_missing(tmp_path: Path) -> None:
    done, calls = start(tmp_path, "worker")
    assert done.returncode != 0
    assert calls == []
    assert "RAY_HEAD must name the head, as host:port" in done.stderr


def test_a_command_joins_the_cluster_first_where_there_is_one(tmp_path: Path) -> None:
    done, calls = start(tmp_path, "search", "a b.yaml", "--address", "auto", RAY_HEAD="head:6379")
    assert done.returncode == 0
    assert calls == [
        "ray start --address=head:6379 --num-cpus=0 --disable-usage-stats",
        "automc search a b.yaml --address auto",
    ]
    assert done.stdout == ""
    _, calls = start(tmp_path, "--version")
    assert calls[2:] == ["automc --version"]


def test_the_service_is_reached_from_this_machine_alone_by_names_that_it_answers_to(compose) -> None:
    from automc.service.offers import Offers
    from automc.service.settings import Settings, check_bind

    service = compose["services"]["service"]
    (port,) = service["ports"]
    assert port.startswith("127.0.0.1:")
    assert [name for name, one in compose["services"].items() if "ports" in one] == ["service"]
    name, *words = service["command"]
    given = get_command(app).commands[name].make_context(name, words).params
    settings = Settings("x", given["host"], given["port"], tuple(given["allow_host"]))
    check_bind(settings.host, tls=False, plain=given["plain_http"])
    assert settings.origin == f"http://localhost:{port.rpartition(':')[2]}"
    assert settings.answers_to("localhost:8765")
    assert settings.answers_to("127.0.0.1:8765")
    assert service["configs"][0]["target"] == "/work/automc.toml"
    assert compose["configs"]["offers"]["content"] == '[workers]\naddress = "auto"\n'
    assert isinstance(Offers(workers={"address": "auto"}).vetted({}, Path)["workers"], dict)
