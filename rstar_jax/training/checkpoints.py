"""Checkpoints of a training that is under way: written while it goes on, read by any mesh and number of processes."""

from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

History = list[dict[str, float]]  # the metrics of each step


class Saver:
    """The checkpoints in a folder, of which the last is kept, each whole or not there. Its context ends all writing."""

    def __init__(self, folder: epath.PathLike):
        training = ocp.training
        path = epath.Path(folder)
        self._checkpointer = training.Checkpointer(
            path if path.is_absolute() else path.resolve(),  # as Orbax wants it; gs://... is absolute as it is
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=training.preservation_policies.LatestN(1),
            cleanup_tmp_directories=True,
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, trees: dict[str, Any], history: History) -> None:
        """Begins to write the named trees as they are after `step` steps, and the metrics of these steps.

        It waits for the checkpoint before, and until this one's arrays are copied from the devices. The metrics are
        copied too: they go on while it writes.
        """
        self._checkpointer.save_checkpointables_async(step, trees, custom_metadata={"history": list(history)})

    def restore(self, abstract: dict[str, Any]) -> tuple[dict[str, Any], History]:
        """The named trees of the newest checkpoint, each placed as the abstract arrays are, and the history."""
        step = self.latest_step
        trees = self._checkpointer.load_checkpointables(step, abstract)
        return trees, list(self._checkpointer.checkpointables_metadata(step).custom_metadata["history"])

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_) -> None:
        """Waits for what is being written."""
        self._checkpointer.close()
