"""The audit of a whole training: some invented units take part, and an attacker guesses which."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from nss_train.errors import ParameterError, Problem
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.accounting.result import AuditBound
from nss_train.privacy.dpsgd.gradients.clipping import ClippedSum
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.privacy.evidence.bounds import epsilon_of_guesses
from nss_train.privacy.evidence.likelihood import NORM, log_likelihood_ratio

logger = logging.getLogger(__name__)

CONFIDENCE = 0.95
GUESSES = {0.95: 0.046, 0.1: 0.004}
"""Shares of the canaries that are guessed, each with its error probability; fixed beforehand. The first
refutes an ε of 8 when there is no noise at all: at δ = 1e-5 that takes 19,000 guesses, none of them wrong,
and nearly all of the error probability. The second proves the most of an honest ε."""
NEVER_DRAWN = 0.5
"""Share of never-drawn canaries above which an audit is weak."""
FEWEST_GUESSES = 50


class Canaries:
    """Invented units, each with a gradient in a single coordinate of the adapter, clipped to a norm of C.

    Half of them, by coins, take part like any other unit: each step draws them with probability q and
    clips them. The attacker sees the gradient of every step (white box), and no gradient is easier to
    distinguish from noise than one of the largest norm, alone in its coordinate. This is the worst case
    that the guarantee covers, stronger than any record of a table could be.

    They cost no forward or backward pass, but each moves its coordinate: an audit with thousands of them
    tests the software, and its adapter should not be used. Which canaries take part is in this object's
    memory alone: a training resumed from a checkpoint is audited from there on, with new coins.
    """

    def __init__(
        self,
        count: int,
        *,
        plan: PrivacyPlan,
        parameters: Sequence[torch.Tensor],
        randomness: SecretRandomness | None = None,
    ) -> None:
        """Choose coordinates; raise :class:`~nss_train.errors.ParameterError` when there are too few."""
        values = sum(parameter.numel() for parameter in parameters)
        if count > values:
            remedy = f"the adapter has {values} coordinates, and each canary needs one; ask for fewer"
            problem = Problem(field="guarantee.audit_canaries", value=count, remedy=remedy)
            raise ParameterError("The training cannot be audited like that.", [problem])
        self._plan = plan
        self._secret = randomness or SecretRandomness()
        self._coordinates = torch.arange(count, device=parameters[0].device) * (values // count)
        self._takes_part = self._secret.heads(count, 0.5)
        self._scores = np.zeros(count)
        self._steps = 0

    def join(self, gradients: ClippedSum) -> None:
        """Add the canaries that a step draws to its sum."""
        drawn = self._takes_part & self._secret.heads(len(self._scores), self._plan.sampling_rate)
        coordinates = self._coordinates[torch.from_numpy(drawn).to(self._coordinates.device)]
        norms = torch.full(coordinates.shape, NORM * self._plan.clip, device=coordinates.device)
        gradients.add_sparse(coordinates, norms)

    def see(self, released: Sequence[torch.Tensor]) -> None:
        """Show the attacker the gradient of a step."""
        values = torch.cat([part.flatten() for part in released])[self._coordinates].double().cpu().numpy()
        self._scores += log_likelihood_ratio(values * self._plan.batch / self._plan.clip, self._plan)
        self._steps += 1

    def result(self) -> AuditBound:
        """Return the best bound of several numbers of guesses, which share the error probability."""
        tried = [self._guess(share, alpha) for share, alpha in GUESSES.items()]
        found = max(tried, key=lambda one: one.epsilon_lower_bound)
        fields = {"action": "privacy.audited", "epsilon_lower_bound": found.epsilon_lower_bound}
        logger.info(
            "audit: %d of %d guesses about %d canaries were right, so that ε ≥ %.2f%s",
            found.correct,
            found.guesses,
            found.canaries,
            found.epsilon_lower_bound,
            "" if found.weak_because is None else f"; weak because {found.weak_because}",
            extra=fields,
        )
        return found

    def _guess(self, share: float, alpha: float) -> AuditBound:
        """Guess that the highest scores take part and the lowest do not; abstain on the rest."""
        count = len(self._scores)
        each = int(count * share / 2)
        order = np.argsort(self._scores, kind="stable")
        correct = int(self._takes_part[order[count - each :]].sum() + (~self._takes_part[order[:each]]).sum())
        bound = epsilon_of_guesses(
            canaries=count,
            guesses=2 * each,
            correct=correct,
            delta=self._plan.delta,
            alpha=alpha,
        )
        return AuditBound(
            epsilon_lower_bound=bound,
            confidence=CONFIDENCE,
            canaries=count,
            guesses=2 * each,
            correct=correct,
            steps=self._steps,
            weak_because=self._weakness(),
        )

    def _weakness(self) -> str | None:
        unseen = (1 - self._plan.sampling_rate) ** self._steps
        if unseen > NEVER_DRAWN:
            return f"{unseen:.0%} of the canaries that take part are drawn by no step"
        if len(self._scores) * min(GUESSES) < FEWEST_GUESSES:
            return f"{len(self._scores)} canaries are few"
        return None
