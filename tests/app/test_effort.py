"""Who evaluates, changed for a study that exists; specs that older versions wrote."""

import pytest

from automc.app.effort_schema import restaffed
from automc.core.study import Rung, Workers
from automc.errors import SpecError
from automc.workers.shapes import Shape, inventory, require

BASE = Workers(2, "10.0.0.1:6379", 4)


def test_number_and_cluster_change_and_nothing_else():
    assert restaffed(BASE, None, None) == BASE
    assert restaffed(BASE, 0, "local") == Workers(0, "local", 4)
    assert restaffed(BASE, "auto", None) == Workers("auto", "10.0.0.1:6379", 4)
    assert (BASE.most, Workers("auto", window=4).most, Workers(0).most) == (2, 4, 1)


@pytest.mark.parametrize(
    ("given", "count", "message"),
    [
        (BASE, 5, "workers 5 is above its window 4, which decides what each proposal knows"),
        (Workers(timeout_s=9.0), 0, "workers 0: workers.timeout_s is enforced by killing the process that evaluates"),
        (Workers(memory_mb=9), 0, "workers 0: workers.memory_mb is enforced by killing"),
    ],
)
def test_what_cannot_be_is_refused(given, count, message):
    with pytest.raises(SpecError, match=message):
        restaffed(given, count, None)


def test_specs_of_older_versions_have_the_needs_and_limits_that_were():
    assert Rung(steps=5, share=0.5) == Rung(5, 0.5, 1.0, 0.0, {})
    assert Workers(count=1, address=None, window=4, timeout_s=None) == Workers()


def test_a_rung_needs_one_node_that_has_all_of_it():
    nodes = [{"CPU": 8.0, "memory": 1e9}, {"CPU": 1.0, "GPU": 1.0, "node:10.0.0.1": 1.0}, {"CPU": 8.0}]
    fits = [Shape.of(Rung(cpus=8)), Shape.of(Rung(gpus=0.25)), Shape.of(Rung(cpus=0))]
    require(fits, nodes, "there")
    assert inventory(nodes) == "CPU 1, GPU 1; 2 nodes of CPU 8"
    assert [shape.needs for shape in fits] == [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 0.25}, {}]
