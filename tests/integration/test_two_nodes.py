"""Two nodes on this machine: one joins while a study runs, and dies; no trial is lost, none counts twice."""

from collections import Counter
from dataclasses import replace

import pytest

from automc.app.catalog import PROPOSERS, build
from automc.core.metrics import Objective
from automc.core.rules import Rule, resolve
from automc.core.search import Ending, Search, Silent
from automc.core.space import Real
from automc.core.store import Control
from automc.core.study import Budget, ModelSpec, Part, Rung, StudySpec, Workers
from automc.core.trial import TrialState
from automc.evaluation.synthetic import prepare_synthetic
from automc.operators import OPERATORS, ORDER
from automc.stoppers import NeverStopper
from automc.stores import open_store
from automc.workers.ray_pool import RayExecutor

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.slow,  # four starts of Ray nodes and workers
]

NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "num_gpus": 0}
SPEC = StudySpec(
    "s",
    ModelSpec(""),
    Part(""),
    (Rule("prune", {"prune_ratio": Real(0.0, 0.8)}),),
    ORDER,
    (Objective("top1"), Objective("size_bytes")),
    proposer=Part("random"),
    evaluator=Part("synthetic", {"layers": 5, "sleep_s": 1.0}),
    rungs=(Rung(),),
    budget=Budget(10_000),
)


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


class Recorded(RayExecutor):
    """Keeps all outcomes; calls ``busy`` when all workers have just been given trials."""

    busy = staticmethod(lambda: None)

    def gather(self, watch):
        if len(self._running) == 3:
            self.busy()
        found = super().gather(watch)
        self.outcomes = [*getattr(self, "outcomes", []), *found]
        return found

    @property
    def processes(self) -> set:
        return {outcome.pid for outcome in self.outcomes if outcome.state is TrialState.COMPLETE}


class Story(Silent):
    """A node joins after three trials, dies three trials after it evaluates, and after three more the study stops."""

    def __init__(self, cluster, executor: Recorded):
        self.cluster, self.executor = cluster, executor
        executor.busy = self.leave
        self.node, self.copies, self.finished_at, self.done = None, {}, {}, 0

    def finished(self, trial):
        self.done += 1
        if self.done == 3:
            self.node = self.cluster.add_node(**NODE)
        if "joined" not in self.finished_at and len(self.executor.processes) == 3:
            from ray.experimental import get_object_locations

            self.finished_at["joined"] = self.done
            evaluator = self.executor._staff._evaluator
            self.copies = Counter(get_object_locations([evaluator])[evaluator]["node_ids"])

    def leave(self):
        """While its workers evaluate: what they do is lost."""
        if "left" not in self.finished_at and self.done >= self.finished_at.get("joined", 10_000) + 3:
            self.finished_at["left"] = self.done
            self.cluster.remove_node(self.node, allow_graceful=False)

    def asked(self) -> Control:
        over = self.done >= self.finished_at.get("left", 10_000) + 3
        return Control.STOP if over else Control.GO


def test_a_node_joins_and_dies_while_a_study_runs(cluster):
    spec = replace(SPEC, workers=Workers(3, cluster.address))
    evaluator = prepare_synthetic(spec)
    space = resolve(spec.rules, ORDER, evaluator.table, OPERATORS)
    parts = (build(PROPOSERS, "proposer", spec.proposer, space, spec.objectives, (), spec.seed), NeverStopper())
    store = open_store("memory:")
    store.create(spec, {})
    said = []
    executor = Recorded(evaluator, spec.workers, spec.rungs, said.append)
    try:
        story = Story(cluster, executor)
        assert Search(spec, space, parts, executor, store, story).run(story.asked) is Ending.DRAINED
        rest = replace(spec, budget=Budget(len(store.trials("s"))))
        again = (build(PROPOSERS, "proposer", spec.proposer, space, spec.objectives, (), spec.seed), NeverStopper())
        assert Search(rest, space, again, executor, store).run() is Ending.DONE
    finally:
        executor.close()

    states = Counter(outcome.state for outcome in executor.outcomes)
    lost = [outcome for outcome in executor.outcomes if outcome.state is TrialState.WAITING]
    complete = Counter(outcome.number for outcome in executor.outcomes if outcome.state is TrialState.COMPLETE)
    trials = store.trials("s")
    assert set(states) == {TrialState.COMPLETE, TrialState.WAITING}
    assert {outcome.reason for outcome in lost} == {"lost"}
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert complete == Counter(trial.number for trial in trials)  # each once
    assert max(story.copies.values()) == 1
    assert len(story.copies) == 2  # model and data came to the new node, once for its two workers
