"""The command ``dq-init cost``: cost and duration of exposures."""

import json
from dataclasses import asdict, replace
from itertools import repeat

import click
from rich.box import SIMPLE
from rich.table import Table

from infra import options
from infra.aws import find_stack
from infra.cli import UserError, format_duration, plural
from infra.console import Console
from infra.cost.estimate import AWS, DROPPED, PER_DAY, exposures_seconds
from infra.cost.prices import measured

_TIMEOUT = 900  # seconds: docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html
_PRODUCTS = click.Choice(["native", "float32", "virtual"])


def _whole_number(
    name: str, least: int, most: int, text: str, default: int | None = None
) -> options.Decorator:
    """Return a click option: an integer from `least` to `most`, with the help `text`."""
    return click.option(name, type=click.IntRange(least, most), default=default, help=text)


@click.command()
@_whole_number("--exposures", 1, 10**8, "Number of exposures.", PER_DAY)
@click.option("--size", type=options.Number(0.001, 100_000), default=92.0, help="MB of each.")
@options.stack()
@_whole_number("--memory", 512, 10_240, "MB of memory; default: the template's for the product.")
@click.option(
    "--product",
    type=_PRODUCTS,
    help="Pixels of assembled products, or virtual; default: the stack's, or native.",
)
@_whole_number("--concurrency", 1, 1000, "Exposures at a time; default: the stack's, or 20.")
@_whole_number("--account", 1, 10**6, "Concurrency quota of the AWS account.", AWS.account)
@options.as_json
def command(  # noqa: PLR0913, PLR0917
    exposures: int,
    size: float,
    stack: str | None,
    memory: int | None,
    product: str | None,
    concurrency: int | None,
    account: int,
    as_json: bool,
) -> None:
    """Estimate the cost and the duration of exposures.

    Cost and duration of one exposure are estimated from measured ones (docs/reference/cost.md). The
    duration of many that are submitted together follows from the quotas of AWS
    (docs/explanation/limits.md).
    """
    found = find_stack(stack) if stack else None
    product = product or (found.product if found else "native")
    if concurrency is None:
        concurrency = int(found.parameters.get("BackfillConcurrency", 20)) if found else 20
    in_bytes = int(size * 1e6)
    one = measured().of_size(in_bytes, product)
    of_stack = measured().of_size(in_bytes, found.product) if found else one
    # The time is kept, although less or more CPU changes it: assembled products mostly wait for S3.
    one = replace(one, memory=memory or of_stack.memory)
    if one.seconds > _TIMEOUT:
        raise UserError(
            f"exposure of {one.exposure}: would take {one.seconds:.0f} s, expected less than the "
            f"{_TIMEOUT} s that Lambda allows; process it with dq-init run"
        )
    sizes = repeat(in_bytes, exposures)
    seconds = exposures_seconds(sizes, concurrency, product, replace(AWS, account=account))
    if as_json:
        total = {
            "exposures": exposures,
            "usd": one.usd() * exposures,
            "usd_a_month": one.usd_a_month() * exposures,
            "seconds": seconds,
        }
        print(json.dumps({"invocation": asdict(one), "total": total}, indent=2))
        return
    console = Console()
    console.print(
        f"{plural(exposures, 'exposure')} of {one.exposure}, {one.product}, with {one.memory} MB "
        f"of memory on arm64, at most {concurrency} at a time"
    )
    table = Table("Service", "USD", box=SIMPLE)
    table.columns[1].justify = "right"
    for name, usd in one.parts().items():
        table.add_row(name, f"{usd * exposures:,.4f}")
    table.add_section()
    table.add_row("Total without storage", f"{one.usd() * exposures:,.4f}")
    table.add_row("Storage of the products, each month", f"{one.usd_a_month() * exposures:,.4f}")
    console.print(table)
    console.print(f"Submitted together, they are done after about {format_duration(seconds)}.")
    if seconds > AWS.kept:
        console.print(DROPPED, style="bold red")
