"""What a stack costs by the month, however little it has to do."""

from dataclasses import dataclass

from infra.cost.prices import PRICES, Prices

__all__ = ["MONTHLY", "Monthly"]

_LONG_POLLS = 5 * 3 * 60 * 24 * 30.4
"""Of a queue that is empty: five pollers, each asking for 20 seconds ("Configuring scaling behavior
for SQS event source mappings", AWS Lambda Developer Guide)."""


@dataclass(frozen=True)
class Monthly:
    """How many there are in a stack (tests compare them with the template and with the code).

    Attributes
    ----------
    metrics, alarms, dashboards, polled_queues : int
        Of CloudWatch, and queues that drive the function.
    """

    metrics: int = 10
    alarms: int = 11
    dashboards: int = 1
    polled_queues: int = 3

    def parts(self, prices: Prices = PRICES) -> dict[str, float]:
        """USD a month, by what is paid for."""
        return {
            "metrics": self.metrics * prices.metric,
            "alarms": self.alarms * prices.alarm,
            "dashboard": self.dashboards * prices.dashboard,
            "polling of empty queues": self.polled_queues * _LONG_POLLS * prices.message,
        }


MONTHLY = Monthly()
