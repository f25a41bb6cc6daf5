"""A stack on the embedded AWS that has the template's outputs and parameters, and does nothing."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws

__all__ = ["stack_of_outputs"]


@contextmanager
def stack_of_outputs(
    aws: LocalAws, name: str, queues: Iterable[str], **parameters: str
) -> Iterator[dict[str, str]]:
    """Make it; yields the addresses of its queues, by output."""
    sqs, stacks = aws.client("sqs"), aws.client("cloudformation")
    urls = {queue: sqs.create_queue(QueueName=f"{name}-{queue}")["QueueUrl"] for queue in queues}
    outputs = {"ProductBucket": PRODUCTS, "RawBucket": RAW} | urls
    given = {"MirrorBucket": MIRROR, "CrdsContext": "latest"} | parameters
    template = {
        "Parameters": {key: {"Type": "String"} for key in given},
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    stacks.create_stack(
        StackName=name,
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
    )
    try:
        yield urls
    finally:
        stacks.delete_stack(StackName=name)
        for url in urls.values():
            sqs.delete_queue(QueueUrl=url)
