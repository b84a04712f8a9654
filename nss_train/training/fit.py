"""One training from start to end, whichever trainer it is."""

from __future__ import annotations

import time

from nss_train.contract import StageDrained
from nss_train.training.fitted import Fitted
from nss_train.training.hugging_face import AdapterTrainer
from nss_train.training.options import RunOptions
from nss_train.training.steps.out_of_memory import typed_out_of_memory


def fit(trainer: AdapterTrainer, run: RunOptions) -> Fitted:
    """Run a trainer to its end; return the result.

    Raises :class:`~nss_train.errors.OutOfMemory` for any library's own error,
    :class:`~nss_train.contract.StageDrained` when the training was asked to leave, and
    :class:`~nss_train.errors.BudgetExceeded` for a private result that cost too much.
    """
    started = time.monotonic()
    with typed_out_of_memory():
        trainer.train(resume_from_checkpoint=None if run.resume_from is None else str(run.resume_from))
    if run.checkpoints is not None and run.checkpoints.drained:
        raise StageDrained(trainer.state.global_step)
    return trainer.fitted(run, seconds=time.monotonic() - started)
