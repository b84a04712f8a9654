"""The audit of a whole training: invented units take part in it, and an attacker guesses which of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from nss_train.errors import ParameterError, Problem
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.accounting.result import AuditBound
from nss_train.privacy.audit.bounds import epsilon_of_guesses
from nss_train.privacy.audit.evidence import log_likelihood_ratio
from nss_train.privacy.audit.observations import NORM
from nss_train.privacy.dpsgd.clipping import ClippedSum
from nss_train.privacy.dpsgd.randomness import SecretRandomness

logger = logging.getLogger(__name__)

CONFIDENCE = 0.95
GUESSES = {0.95: 0.046, 0.1: 0.004}
"""Shares of the canaries that are guessed, and the chance of being wrong that each may use; fixed
beforehand. The first refutes an ε of 8 where there is no noise at all: at δ = 1e-5 it takes 19,000
guesses, none of them wrong, and nearly all of the chance. The second proves the most of an honest ε."""
NEVER_DRAWN = 0.5
"""Share of canaries that no step draws above which an audit is weak."""
FEWEST_GUESSES = 50


class Canaries:
    """Units whose gradients are one coordinate of the adapter each, of a norm that is clipped to C.

    Half of them, by coins, take part like any other unit: each step draws them with probability q and
    clips them. The attacker sees the gradient of every step (white box), and no unit's gradient can be
    told from noise better than one that is as long as the clip allows and alone at its place. So this
    is the worst that the guarantee covers, stronger than any record of a table could be.

    They cost no forward or backward pass. But each pulls at its coordinate: an audit with thousands
    of them tests the software, and its adapter is not one to use. Who takes part is in this object's
    memory alone: a training that goes on from a checkpoint is audited from there on, with new coins.
    """

    def __init__(
        self,
        count: int,
        *,
        plan: PrivacyPlan,
        parameters: Sequence[torch.Tensor],
        randomness: SecretRandomness | None = None,
    ) -> None:
        """Raises :class:`~nss_train.errors.ParameterError` when there are not so many coordinates."""
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
        """Add those that a step draws to its sum."""
        drawn = self._takes_part & self._secret.heads(len(self._scores), self._plan.sampling_rate)
        coordinates = self._coordinates[torch.from_numpy(drawn).to(self._coordinates.device)]
        norms = torch.full(coordinates.shape, NORM * self._plan.clip, device=coordinates.device)
        gradients.add_sparse(coordinates, norms)

    def see(self, released: Sequence[torch.Tensor]) -> None:
        """Let the attacker look at the gradient of a step."""
        values = torch.cat([part.flatten() for part in released])[self._coordinates].double().cpu().numpy()
        self._scores += log_likelihood_ratio(values * self._plan.batch / self._plan.clip, self._plan)
        self._steps += 1

    def result(self) -> AuditBound:
        """The best of some numbers of guesses; the chance of being wrong is shared among them."""
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
        """The highest scores are guessed to take part, the lowest not to; nothing is said of the rest."""
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
