"""Where ledger, catalogue, products and mirror lie, and what is asked of them together."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from rich.progress import Progress

from handler.s3.locations import S3Location
from handler.s3.requester_pays import agree_to_pay
from infra.campaign.prefixes import catalogue_in, ledger_in
from infra.console import Console
from infra.mirror.bucket import Mirror, check_contexts
from infra.reprocessing.affected import Affected, Question, affected
from infra.reprocessing.catalogue import Catalogue
from infra.reprocessing.selection import Group
from infra.stacks import Stack, find_stack
from infra.terminal import Mistake

__all__ = ["Places", "asked", "places_of"]


@dataclass(frozen=True)
class Places:
    """Where everything lies."""

    s3: Any
    stack: Stack | None
    ledger: S3Location
    catalogue: S3Location
    mirror: S3Location | None

    @property
    def prefix(self) -> str:
        """Key prefix of the products."""
        return self.stack.output_prefix if self.stack else "dq_init/"

    @property
    def context(self) -> str:
        """The context that the function uses if a request names none."""
        return (self.stack and self.stack.parameters.get("CrdsContext")) or "latest"


def places_of(arguments: argparse.Namespace) -> Places:
    """Find the places by what a person has typed.

    Raises
    ------
    Mistake
        If neither a stack nor a ledger is named.
    """
    s3, stack = boto3.client("s3"), find_stack(arguments.stack) if arguments.stack else None
    if stack is not None:
        agree_to_pay(s3, stack.requester_pays)
    ledger, catalogue, mirror = arguments.ledger, arguments.catalogue, arguments.mirror
    if stack is not None:
        bucket = stack.output("ProductBucket")
        ledger = ledger or ledger_in(bucket)
        mirror = mirror or stack.mirror
    if ledger is None:
        raise Mistake("--stack NAME says where the ledger is; or give --ledger s3://.../dq_ledger")
    return Places(s3, stack, ledger, catalogue or catalogue_in(ledger.bucket), mirror)


@contextmanager
def asked(places: Places, question: Question) -> Iterator[Affected]:
    """What a context affects, with a bar for whoever waits."""
    if places.mirror is None:
        raise Mistake("--stack NAME says where the mirror is; or give --mirror s3://bucket")
    mirror = Mirror(places.s3, places.mirror)
    check_contexts(mirror, *filter(None, [question.to, question.compared]))

    def watched(groups: list[Group]) -> Iterator[Group]:
        with Progress(console=Console(stderr=True)) as bar:
            yield from bar.track(groups, description="Comparing")

    with (
        Catalogue.open(places.s3, places.catalogue) as catalogue,
        affected(catalogue, mirror, question, watched) as answer,
    ):
        yield answer
