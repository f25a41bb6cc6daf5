"""Time to redrive failures on a model of SQS that takes 25 ms for every request.

``python -m tests.benchmark.redrive [MESSAGES]`` prints the row of docs/explanation/performance.md. The model is
a process of its own that speaks the JSON protocol of SQS.
"""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any

import boto3
from botocore.config import Config

from infra.operate.messages import WORKERS, Targets, redrive

MESSAGES = 100_000
LATENCY = 0.025
"""Seconds of a request, as on the model of S3 (RESULTS.md)."""


class Queue:
    """The messages of a queue, each received once, and the number of sent ones."""

    def __init__(self, messages: int) -> None:
        self.left = {str(number) for number in range(messages)}
        self.unread = iter([str(number) for number in range(messages)])
        self.sent = 0
        self.lock = threading.Lock()

    def answer(self, action: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of one of the actions that a redrive uses."""
        with self.lock:
            if action == "ReceiveMessage":
                return {"Messages": [_message(n) for n in islice(self.unread, 10)]}
            entries = [{"Id": entry["Id"]} for entry in request.get("Entries", [])]
            if action == "SendMessageBatch":
                self.sent += len(entries)
            if action == "DeleteMessageBatch":
                self.left -= {entry["ReceiptHandle"] for entry in request["Entries"]}
            if action == "GetQueueAttributes":
                counts = {"ApproximateNumberOfMessages": str(len(self.left))}
                return {"Attributes": {**counts, "Sent": str(self.sent)}}
            return {"Successful": entries, "Failed": []}


def _message(number: str) -> dict[str, Any]:
    asked = {"bucket": "raw", "key": f"2023/03/{number}_uncal.fits"}
    detail = {"input": asked, "request": asked, "error": "ReferenceUnavailable", "reason": "r"}
    return {
        "MessageId": number,
        "ReceiptHandle": number,
        "Body": json.dumps({"source": "jwst.dq_init", "detail": detail}),
        "Attributes": {"SentTimestamp": "0"},
    }


class Handler(BaseHTTPRequestHandler):
    """The model's HTTP; connections are kept, as SQS keeps them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    queue: Queue

    def do_POST(self) -> None:
        """Answer after 25 ms."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(LATENCY)
        action = self.headers["X-Amz-Target"].rpartition(".")[2]
        answer = json.dumps(self.queue.answer(action, json.loads(body))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Discard the log."""


def serve(messages: int) -> None:
    """Serve a queue until standard input ends; print the port."""
    Handler.queue = Queue(messages)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()


def measure(messages: int) -> str:
    """Redrive so many messages; return a row of a table in Markdown."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmark.redrive", "--serve", str(messages)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        options: dict[str, Any] = {
            "endpoint_url": endpoint,
            "region_name": "us-east-1",
            "aws_access_key_id": "model",
            "aws_secret_access_key": "model",
        }
        sqs = boto3.client("sqs", config=Config(max_pool_connections=WORKERS), **options)
        targets = Targets(f"{endpoint}/1/uploads", None, boto3.client("events", **options))
        began = time.monotonic()
        moved = redrive(sqs, f"{endpoint}/1/failed", targets)
        seconds = time.monotonic() - began
        found: Any = sqs.get_queue_attributes(QueueUrl=endpoint, AttributeNames=["All"])
        process.stdin.close()
    left, sent = (found["Attributes"][name] for name in ("ApproximateNumberOfMessages", "Sent"))
    return (
        f"| {messages:,} | {seconds:.0f} s | {moved.done / seconds:,.0f} a second | "
        f"{int(sent):,} sent, {int(left):,} left, {len(moved.refused):,} refused |"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    else:
        print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES))
