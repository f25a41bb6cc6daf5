"""An S3 server that keeps only the lengths of uploads and can be as slow as S3.

Its buckets have versions, as those of the template do.

Emulators keep objects in memory and put their parts together in Python (half an hour for the 10 GB
of a float32 product of 4 GB), and none shows how slow S3's own copying is. What is measured here is
the function's memory, CPU time or time, so anything will do that answers as S3 does.
``python -m tests.model_of_s3.server PORT FILE CACHE [--slow]`` serves FILE as the exposure and CACHE
as the mirror; with ``--slow`` it has the speed that public measurements give S3 (`Speed`).
"""

import json
import re
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.model_of_s3.speed import AS_MEASURED, Speed

_PIECE = 1 << 20


METADATA = "x-amz-meta-"
COUNTS = "/counts"
"""Since the last call: requests (GET-class, PUT-class, events, SQS), bytes of events and products."""
ETAG, VERSION = '"there"', "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"
"""Of every object that exists at the start."""
_LEDGER = "/dq_ledger/"
_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"


class Handler(BaseHTTPRequestHandler):
    """Handle the requests of the function."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = (
        True  # else each response waits 40 ms for an acknowledgement of its headers
    )
    exposure: Path
    cache: Path
    speed = Speed()
    uploads: dict[str, dict[str, str]] = {}  # noqa: RUF012  # of the only server
    entries: dict[str, bytes] = {}  # noqa: RUF012  # of the ledger, which are kept
    counts: Counter[str] = Counter()  # noqa: RUF012
    lengths: dict[str, int] = {}  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.counts["get"] += 1
        self.speed.begin()
        key = self.key()
        if key in self.lengths:
            headers = {"ETag": '"product"', "Content-Length": str(self.lengths[key])}
            self.answer(200, headers=headers | self.uploads[key])
            return
        path = self.path_of(key)
        if path is None:
            self.answer(404)
            return
        headers = {"ETag": ETAG, "Content-Length": str(path.stat().st_size)}
        self.answer(200, headers=headers)

    def do_GET(self) -> None:
        if self.key() == COUNTS:
            reply = json.dumps(self.counts).encode()
            self.counts.clear()
            self.answer(200, reply)
            return
        self.counts["get"] += 1
        self.speed.begin()
        if self.key() in self.entries:
            self.answer(200, self.entries[self.key()], {"ETag": '"entry"'})
            return
        path = self.path_of(self.key())
        if path is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        size = path.stat().st_size
        first, last = 0, size - 1
        wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2]), last)
        with path.open("rb") as file:
            file.seek(first)
            content = file.read(last - first + 1)
        self.speed.move(len(content))
        headers = {"ETag": ETAG}
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.answer(206 if wanted else 200, content, headers)

    def do_PUT(self) -> None:
        self.counts["put"] += 1
        self.speed.begin()
        key, part = self.key(), "partNumber" in self.query()
        length = self.receive(keep=_LEDGER in key)
        self.speed.move(length)
        if "x-amz-copy-source-range" in self.headers:
            first, last = map(int, re.findall(r"\d+", self.headers["x-amz-copy-source-range"]))
            self.speed.copy(last - first + 1)
            self.lengths[key + "?"] += last - first + 1
            self.answer(200, b"<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>")
            return
        if part:
            self.lengths[key + "?"] += length
        else:
            self.lengths[key] = length
            self.uploads[key] = self.metadata()
            self.counts["product bytes"] += 0 if _LEDGER in key else length
        self.answer(200, headers={"ETag": '"product"'})

    def do_POST(self) -> None:
        self.speed.begin()
        key, query = self.key(), self.query()
        if "X-Amz-Target" in self.headers:
            self.answer_others(self.headers["X-Amz-Target"])
            return
        self.counts["put"] += 1
        if "uploads" in query:
            self.discard()
            self.lengths[key + "?"] = 0
            self.uploads[key] = self.metadata()
            self.answer(200, b"<R><UploadId>1</UploadId></R>")
        else:
            self.discard()
            self.lengths[key] = self.lengths.pop(key + "?")
            self.counts["product bytes"] += self.lengths[key]
            self.answer(200, b"<R><ETag>&quot;product&quot;</ETag></R>")

    def answer_others(self, target: str) -> None:
        """Answer requests to SQS and EventBridge."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if target.startswith("AmazonSQS"):
            self.counts["message"] += 1
            self.answer(200, b"{}")
            return
        entries = json.loads(body)["Entries"]
        self.counts["event"] += len(entries)
        self.counts["event bytes"] += sum(len(entry["Detail"]) for entry in entries)
        reply = {"FailedEntryCount": 0, "Entries": [{"EventId": "1"} for _ in entries]}
        self.answer(200, json.dumps(reply).encode())

    def key(self) -> str:
        return unquote(urlsplit(self.path).path)

    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def metadata(self) -> dict[str, str]:
        return {n: v for n, v in self.headers.items() if n.lower().startswith(METADATA)}

    def path_of(self, key: str) -> Path | None:
        """Return the file of a key: the exposure, or a file of the mirror."""
        if key.endswith("_uncal.fits"):
            return self.exposure
        path = self.cache.joinpath(*key.split("/")[2:])
        return path if path.is_file() else None

    def receive(self, keep: bool) -> int:
        """Read the body and keep it unless it is chunked; return the length of its content."""
        if not keep or "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self.discard()
        self.entries[self.key()] = self.rfile.read(int(self.headers["Content-Length"]))
        return len(self.entries[self.key()])

    def discard(self) -> int:
        """Read the body; return the length of its content."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = left = int(self.headers.get("Content-Length", 0))
            while left:
                left -= len(self.rfile.read(min(left, _PIECE)))
            return int(self.headers.get("x-amz-decoded-content-length", length))
        while size := int(self.rfile.readline().split(b";")[0], 16):
            self.rfile.read(size + 2)
        while self.rfile.readline().strip():
            pass
        return int(self.headers["x-amz-decoded-content-length"])

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        always = {"Content-Length": str(len(body)), "Last-Modified": _MODIFIED}
        always["x-amz-version-id"] = VERSION
        for name, value in {**always, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    """Serve until the process ends."""
    Handler.exposure, Handler.cache = Path(sys.argv[2]), Path(sys.argv[3])
    if "--slow" in sys.argv[4:]:
        Handler.speed = Speed(**AS_MEASURED)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
