"""Have RawBucket tell EventBridge of uploads: ``python -m infra listen --stack NAME``.

A bucket that the stack has made does so already. Of one that was there before (RawBucketName)
CloudFormation cannot see to it. The bucket's other notifications stay as they are.
"""

import sys

import boto3

from infra.listen.notifications import is_told, tell
from infra.stacks import find_stack
from infra.terminal import is_agreed, parser_of

__all__ = ["main"]


def main(words: list[str]) -> None:
    """Run the command."""
    parser = parser_of("listen", __doc__)
    parser.add_argument("--stack", required=True, help="name of the deployed stack")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    arguments = parser.parse_args(words)
    bucket, s3 = find_stack(arguments.stack).output("RawBucket"), boto3.client("s3")
    if is_told(s3, bucket):
        print(f"s3://{bucket} tells EventBridge already")
        return
    if not arguments.yes and not is_agreed(f"Have s3://{bucket} tell EventBridge of every upload?"):
        sys.exit("nothing was changed")
    tell(s3, bucket)
    print(f"s3://{bucket} tells EventBridge now")
