"""The template, deployed by `sam deploy` on a local AWS (MiniStack).

What MiniStack leaves out is done here in its place, and said where it is done:

- EventBridge does not deliver to log groups: `Stack.listening` collects the processing events.
- ``MaximumConcurrency`` arrives as text and stalls the poller: it is set again after deploying.
- A range of a version's bytes is answered with all of them: the buckets' versions are suspended, and
  ETags stand for them (tests/handler has the same cases with versions, on moto).
- Its address is not AWS's: `impatient` writes it into the environment of the function.
- CloudWatch does not extract metrics from logs: the alarms are checked by `tests.e2e.alarms`.
"""

import contextlib
import json
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import psutil
import yaml
from botocore.config import Config

from infra.demo.local_aws import copy_cache, isolated_environment
from tests.benchmark.servers import ministack
from tests.conftest import PROJECT, SCHEMA
from tests.samples.mirror import write_sample_mirror

NAME, REGION, MIRROR = "dq-init", "us-east-1", "crds-mirror"
BUILT = PROJECT / ".aws-sam" / "build" / "template.yaml"
MIRROR_BUILT = PROJECT / ".aws-sam" / "mirror" / "template.yaml"
_EMPTY = '""'
PARAMETERS = {"MirrorBucket": MIRROR, "Architecture": "x86_64", "MaximumConcurrency": "2"}
TIMEOUT, VISIBILITY_TIMEOUT, RETRY_DELAY = 20, 25, 2
"""Seconds; 900, 5400 and 30 on AWS, which is too long for a test of a killed function."""


@dataclass
class Stack:
    """The deployed template."""

    endpoint: str
    server: psutil.Process
    outputs: dict[str, str] = field(default_factory=dict)
    announced: list[dict[str, Any]] = field(default_factory=list)
    events_queue: str = ""  # URL
    _stop: threading.Event = field(default_factory=threading.Event)

    def client(self, service: str) -> Any:
        settings = Config(retries={"mode": "standard", "max_attempts": 5}, read_timeout=120)
        return boto3.client(
            service, endpoint_url=self.endpoint, region_name=REGION, config=settings
        )

    def __getitem__(self, output: str) -> str:
        return self.outputs[output]

    # Input

    def upload(self, key: str, body: bytes) -> None:
        self.client("s3").put_object(Bucket=self["RawBucket"], Key=key, Body=body)

    def repeat_event(self, key: str) -> None:
        """Repeat an event, as EventBridge may."""
        head = self.client("s3").head_object(Bucket=self["RawBucket"], Key=key)
        found = {"key": key, "size": head["ContentLength"], "etag": head["ETag"].strip('"')}
        event = {
            "source": "aws.s3",
            "detail-type": "Object Created",
            "detail": {"bucket": {"name": self["RawBucket"]}, "object": found},
        }
        self.client("sqs").send_message(
            QueueUrl=self["UploadedQueue"], MessageBody=json.dumps(event)
        )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Disable the event source, so that exposures wait in the queue."""
        self._switch(enabled=False)
        try:
            yield
        finally:
            self._switch(enabled=True)

    def _switch(self, enabled: bool) -> None:
        functions = self.client("lambda")
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
            functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=enabled)

    def kill_function(self, chance: random.Random) -> bool:
        """Kill a process of the function, as Lambda does at a timeout or out of memory."""
        workers = self.workers()
        if not workers:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(workers).kill()
            return True
        return False

    def workers(self) -> list[psutil.Process]:
        """Return the processes of the function that can be killed."""
        return [p for p in self.server.children(recursive=True) if _is_alive(p)]

    def forget(self) -> None:
        """Kill all processes of the function, so that their memory is empty."""
        for process in self.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    # Output

    def depth(self, queue: str) -> int:
        """Return the number of messages of a queue, including those in flight."""
        return self._depth(self[queue])

    def _depth(self, url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def drain(self, seconds: float) -> None:
        """Wait until the queues are empty and every event has arrived."""
        end = time.monotonic() + seconds
        while any(self.depth(f"{name}Queue") for name in ("Uploaded", "Backfill", "Unfinished")):
            assert time.monotonic() < end, f"{self.depth('UploadedQueue')} messages are left"
            time.sleep(0.2)
        known = -1
        while known != len(self.announced) or (
            self.events_queue and self._depth(self.events_queue)
        ):
            known = len(self.announced)
            time.sleep(1)

    def products(self) -> dict[str, int]:
        """Return the keys and sizes of the products."""
        pages = (
            self.client("s3")
            .get_paginator("list_objects_v2")
            .paginate(Bucket=self["ProductBucket"], Prefix="dq_init/")
        )
        found = [item for page in pages for item in page.get("Contents", [])]
        return {item["Key"].removeprefix("dq_init/"): item["Size"] for item in found}

    def said(self, key: str) -> list[str]:
        """Return the statuses published for an exposure, in order, without repeated ids."""
        mine = (d for d in self.announced if d["input"] and d["input"]["key"] == key)
        return [detail["status"] for detail in {d["id"]: d for d in mine}.values()]

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """Receive and delete the messages of a queue."""
        sqs, bodies = self.client("sqs"), []
        while found := sqs.receive_message(QueueUrl=self[queue], MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in found:
                bodies.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=self[queue], ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def logged(self) -> list[dict[str, Any]]:
        """Return the function's log lines."""
        pages = (
            self.client("logs")
            .get_paginator("filter_log_events")
            .paginate(logGroupName=self["FunctionLog"])
        )
        lines = [event["message"] for page in pages for event in page["events"]]
        return [json.loads(line) for line in lines if line.startswith("{")]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect the processing events."""
        sqs, events = self.client("sqs"), self.client("events")
        queue = self.events_queue = sqs.create_queue(QueueName="announcements")["QueueUrl"]
        arn = f"arn:aws:sqs:{REGION}:000000000000:announcements"
        events.put_rule(Name="announcements", EventPattern='{"source": ["jwst.dq_init"]}')
        events.put_targets(Rule="announcements", Targets=[{"Id": "queue", "Arn": arn}])
        thread = threading.Thread(target=self._listen, args=(queue,), daemon=True)
        thread.start()
        yield
        self._stop.set()
        thread.join()

    def _listen(self, queue: str) -> None:
        sqs = self.client("sqs")
        while not self._stop.is_set():
            found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in found.get("Messages", []):
                event = json.loads(message["Body"])
                jsonschema.validate(event["detail"], SCHEMA)
                assert len(message["Body"]) < 64 * 1024
                self.announced.append(event["detail"])
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


@contextmanager
def deployed(interpreter: Path, sam: Path) -> Iterator[Stack]:
    """Start MiniStack, fill a mirror, deploy the built template."""
    with (
        isolated_environment(),
        ministack(interpreter) as port,
        tempfile.TemporaryDirectory() as folder,
    ):
        server = psutil.Process(port_owner(port))
        stack = Stack(f"http://127.0.0.1:{port}", server)
        s3 = stack.client("s3")
        for bucket in (MIRROR, "artifacts"):
            s3.create_bucket(Bucket=bucket)
        write_sample_mirror(Path(folder))
        copy_cache(Path(folder), s3, MIRROR)
        deploy(stack, sam)
        with stack.listening():
            yield stack


def impatient(endpoint: str) -> Path:
    """Write the built template with the emulator's address and short waits."""
    built = template()
    for resource in built["Resources"].values():
        properties = resource.get("Properties", {})
        if "VisibilityTimeout" in properties:
            properties["VisibilityTimeout"] = VISIBILITY_TIMEOUT
    function = built["Resources"]["Function"]["Properties"]
    function["Timeout"] = TIMEOUT
    function["Environment"]["Variables"] |= {
        "AWS_ENDPOINT_URL": endpoint,
        "RETRY_DELAY": str(RETRY_DELAY),
    }
    written = BUILT.with_name("impatient.yaml")  # its CodeUri is relative
    written.write_text(yaml.safe_dump(built))
    return written


def deploy_mirror(stack: Stack, sam: Path, name: str, **changes: str) -> dict[str, str]:
    """Deploy infra/mirror.yaml with Reprocess=submit; return its outputs."""
    values = {
        "Architecture": "x86_64",
        "ScheduleState": "DISABLED",
        "Reprocess": "submit",
        "ProductBucket": stack["ProductBucket"],
        "BackfillQueue": stack["BackfillQueue"],
    }
    run_sam(stack, sam, MIRROR_BUILT, name, values | changes)
    return outputs_of(stack, name)


def deploy(stack: Stack, sam: Path, name: str = NAME, **changes: str) -> None:
    """Run `sam deploy` as in docs/how-to/deploy.md, with further parameters by name.

    To `sam` an empty value is a pair of quotes.
    """
    run_sam(stack, sam, impatient(stack.endpoint), name, PARAMETERS | changes)
    functions = stack.client("lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        functions.update_event_source_mapping(
            UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": 2}
        )
    stack.outputs = outputs_of(stack, name)
    for bucket in ("RawBucket", "ProductBucket"):
        stack.client("s3").put_bucket_versioning(
            Bucket=stack[bucket], VersioningConfiguration={"Status": "Suspended"}
        )


def run_sam(stack: Stack, sam: Path, built: Path, name: str, values: dict[str, str]) -> None:
    """Run `sam deploy` on the local AWS."""
    command = [
        *(str(sam), "deploy", "--template-file", str(built), "--stack-name", name),
        *("--s3-bucket", "artifacts", "--capabilities", "CAPABILITY_IAM"),
        *("--no-progressbar", "--no-confirm-changeset", "--parameter-overrides"),
        *(f"{key}={value or _EMPTY}" for key, value in values.items()),
    ]
    environment = os.environ | {"AWS_ENDPOINT_URL": stack.endpoint, "SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != "zombie")
    return False


def outputs_of(stack: Stack, name: str) -> dict[str, str]:
    """Return the outputs of a stack."""
    found = stack.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return {item["OutputKey"]: item["OutputValue"] for item in found["Outputs"]}


def port_owner(port: int) -> int:
    """Return the process that listens on a port of this machine."""
    return next(
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
    )


def template() -> dict[str, Any]:
    """The built template."""
    return yaml.safe_load(BUILT.read_text())
