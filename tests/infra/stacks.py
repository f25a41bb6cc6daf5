"""A stack in moto with the outputs and parameters of the template, but without its resources."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws


@contextmanager
def stack_of_outputs(
    aws: LocalAws, name: str, queues: Iterable[str], **parameters: str
) -> Iterator[dict[str, str]]:
    """Create the stack and its queues; yield the queue URLs by output."""
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
