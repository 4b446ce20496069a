"""What three people need to see.

Law: a board uses only metrics of `gateway.vitals`. A ratio is a quotient of sums, never an average
of ratios; a counter is only seen through rate or increase.
"""

from typing import Final

from dashboards.boards.debug import DEBUG
from dashboards.boards.executive import EXECUTIVE
from dashboards.boards.oncall import ON_CALL

BOARDS: Final = (EXECUTIVE, ON_CALL, DEBUG)
