"""What Ray Tune runs: a module of its own, for it needs Tune when it is imported, and travels to workers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import tune

if TYPE_CHECKING:
    from automc.app.tune import Prepared


class Evaluation(tune.Trainable):  # type: ignore[misc]
    """Measures one policy, rung by rung."""

    def setup(self, config: dict[str, Any], ready: Prepared) -> None:
        self._ready = ready
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._policy, self._rung = self._ready.policy(new_config), 0
        return True

    def step(self) -> dict[str, Any]:
        found = self._ready.measured(self._policy, self._rung)
        self._rung += 1
        return {**found, "done": self._rung >= len(self._ready.spec.rungs)}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"rung": self._rung}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        self._rung = int((checkpoint or {})["rung"])
