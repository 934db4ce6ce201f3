"""A Ray node that declares itself a device measures; others do not."""

import os
import socket

import pytest

from automc.errors import EvaluationError, WorkerError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:ray")


@pytest.fixture(scope="module")
def ray():
    """A local Ray that calls itself the device pi4; ended by its own shutdown only."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        resources={"device:pi4": 1},
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()


def test_a_task_runs_on_the_device_and_brings_its_result(ray):
    from automc.workers.devices import on_device

    assert on_device("pi4", os.getpid) != os.getpid()
    assert on_device("pi4", sum, [1, 2, 3]) == 6


def test_files_are_timed_there(ray):
    from automc.evaluation.timing import on, time_networks
    from automc.measure.forms import Form, onnx_file

    small, large = (onnx_file(Form("linear", n, n, 1, ())) for n in (8, 800))
    first, second = (on("pi4", time_networks, [file], (n,), 9, 1)[0] for file, n in ((small, 8), (large, 800)))
    assert second.median > first.median > 0  # 10,000 times the work


def test_what_fails_there_is_the_error_here(ray):
    from automc.evaluation.timing import on, time_networks

    with pytest.raises(EvaluationError, match="latency: a network's ONNX file: ") as caught:
        on("pi4", time_networks, [b"no network"], (3,), 5, 1)
    assert "\n" not in str(caught.value)


def test_a_device_that_nobody_declares(ray):
    from automc.workers.devices import on_device

    with pytest.raises(WorkerError, match=r"device 'pi5': no node .*\(declared: pi4\); start one with: ray start"):
        on_device("pi5", sum, [])


def test_no_cluster_at_all(monkeypatch):
    """As ``ray.init`` answers where no Ray runs; on a shared machine there may be somebody's."""
    import ray

    from automc.workers import devices
    from automc.workers.devices import on_device

    def nobody(**settings):
        assert settings["address"] == "auto"
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(devices, "_knock", lambda ray: None)
    monkeypatch.setattr(ray, "init", nobody)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        WorkerError, match=r"device 'absent': no Ray cluster to ask \(.*any running.*\); start one with"
    ):
        on_device("absent", len, [])


def test_a_cluster_that_ended_is_not_waited_for(monkeypatch):
    """Ray itself waits most of a minute for an address where nobody listens, and then ends the process."""
    import ray

    from automc.workers.devices import find_device

    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **settings: pytest.fail("asked"))
    with pytest.raises(WorkerError, match=rf"device 'pi4': no Ray cluster to ask \(.*nobody answers at .*:{port}\)"):
        find_device("pi4")
