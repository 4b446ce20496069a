"""Bet against the confidence of a model, one labelled answer after the other.

Law: if a model of confidence c is right with probability c, given all that came before, then
prod(1 + lambda_t (y_t - c_t)) has the mean 1 at any time, as long as each lambda_t is fixed before
y_t and lies within (-1/(1 - c_t), 1/c_t). So the evidence passes 1/alpha, ever, with probability
alpha at most (Ville). Two such products, one that the model is right more often and one that it is
right less often than it says, are averaged.

Confidence is known up to its bin. The bet that the model is right more often takes the bin's upper
end for c, the other one its lower end, so both hold wherever in the bin the truth is; what is
smaller than a bin, two points at most, is not found.

A bet is what the last few hundred labels would have made the most of, less what chance alone would
show: without a sign of miscalibration nothing is bet, and evidence does not wear off.

It assumes that whether, and in which order, answers are labelled does not depend on their being
right, given the confidence.
Source: drift.md section 7; Waudby-Smith and Ramdas (2024) for the bets.
"""

import math
from dataclasses import dataclass
from typing import Final

# Labels after which what was seen counts half.
HALF_LIFE_LABELS: Final = 512
DECAY: Final = 0.5 ** (1 / HALF_LIFE_LABELS)
# Of the largest bet that is allowed; a lost one costs half of the evidence at most.
BOLDNESS: Final = 0.5
# Scatter of about 25 labels of confidence 0.8, so that the first ones do not lead to large bets.
SCATTER_FIRST: Final = 4.0
# Probability that a version that is calibrated is ever said not to be.
ALPHA: Final = 0.01
LOG_BOUND: Final = -math.log(ALPHA)
_LOG_2: Final = math.log(2)


@dataclass(slots=True, kw_only=True)
class Wager:
    """Evidence against the calibration of one version.

    `weight`, `surplus` and `scatter` are decayed sums of 1, y - c and its square. Units: onset_ns
    is when evidence was last at or below 0, alarmed_ns since when it is miscalibrated, 0 for not;
    both by the arrival of labels.
    """

    log_more: float = 0.0  # right more often than it says
    log_less: float = 0.0
    weight: float = 0.0
    surplus: float = 0.0
    scatter: float = 0.0
    onset_ns: int = 0
    alarmed_ns: int = 0
    labelled_ns: int = 0  # the newest label

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the evidence, 0 at the start."""
        high, low = max(self.log_more, self.log_less), min(self.log_more, self.log_less)
        return high + math.log1p(math.exp(low - high)) - _LOG_2

    @property
    def mean_surplus(self) -> float:
        """How much more often than it says the model was right lately; below 0 for less often."""
        return self.surplus / self.weight if self.weight else 0.0

    @property
    def bet(self) -> float:
        """The next lambda, before its limits."""
        chance = math.sqrt(self.scatter)
        sure = max(0.0, abs(self.surplus) - chance)
        return math.copysign(sure / (self.scatter + SCATTER_FIRST), self.surplus)

    def take(self, is_right: bool, low: float, high: float, at_ns: int) -> None:
        """Take a labelled answer whose confidence lies in [low, high], and tell what it shows.

        Once the evidence passes 1/ALPHA the version counts as miscalibrated, until the last few
        hundred labels show nothing of it; then the evidence starts anew.
        """
        answer, bet = float(is_right), self.bet
        if bet > 0:
            self.log_more += math.log1p(min(bet, BOLDNESS / high) * (answer - high))
        elif bet < 0:
            self.log_less += math.log1p(max(bet, -BOLDNESS / (1 - low)) * (answer - low))
        residue = answer - (low + high) / 2
        self.weight = DECAY * self.weight + 1
        self.surplus = DECAY * self.surplus + residue
        self.scatter = DECAY * self.scatter + residue**2
        self.labelled_ns = max(self.labelled_ns, at_ns)
        if self.alarmed_ns:
            if abs(self.surplus) <= math.sqrt(self.scatter):
                self.log_more = self.log_less = 0.0
                self.alarmed_ns, self.onset_ns = 0, at_ns
            return
        evidence = self.log_evidence
        if evidence <= 0 or not self.onset_ns:
            self.onset_ns = at_ns
        if evidence >= LOG_BOUND:
            self.alarmed_ns = max(at_ns, 1)
