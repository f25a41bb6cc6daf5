"""Evaluate the deployed alarms on measured points, because MiniStack has no metrics of logs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.e2e.stack import Stack

_STATISTICS = {"Maximum": max, "Minimum": min, "Sum": sum}
_COMPARISONS = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
}


@dataclass(frozen=True)
class Point:
    """One point of a metric; its dimensions are part of its identity."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]
    value: float


def measured(lines: Iterable[dict[str, Any]]) -> Iterator[Point]:
    """Read log lines in CloudWatch's embedded metric format."""
    for line in lines:
        for metrics in line.get("_aws", {}).get("CloudWatchMetrics", []):
            for names in metrics["Dimensions"]:
                dimensions = frozenset((name, line[name]) for name in names)
                for metric in metrics["Metrics"]:
                    for value in line[metric["Name"]]:
                        yield Point(metrics["Namespace"], metric["Name"], dimensions, value)


def queued(stack: Stack, *queues: str) -> Iterator[Point]:
    """Measure queues as SQS does."""
    for queue in queues:
        name = stack[queue].rpartition("/")[2]
        dimensions = frozenset({("QueueName", name)})
        depth = float(stack.depth(queue))
        yield Point("AWS/SQS", "ApproximateNumberOfMessagesVisible", dimensions, depth)


def firing(stack: Stack, points: Iterable[Point]) -> set[str]:
    """Return the logical ids of the alarms that fire if all points are of one period."""
    points, found = list(points), set()
    for alarm in stack.client("cloudwatch").describe_alarms()["MetricAlarms"]:
        dimensions = frozenset((item["Name"], item["Value"]) for item in alarm["Dimensions"])
        wanted = (alarm["Namespace"], alarm["MetricName"], dimensions)
        values = [p.value for p in points if (p.namespace, p.name, p.dimensions) == wanted]
        compare = _COMPARISONS[alarm["ComparisonOperator"]]
        if values and compare(_STATISTICS[alarm["Statistic"]](values), alarm["Threshold"]):
            found.add(alarm["AlarmName"].split("-")[2])
    return found
