"""A proxy in front of an S3 emulator that adds faults."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from tests.model_of_s3.faults import REFUSALS, Fault, Kind, Rate
from tests.model_of_s3.foreign import ForeignBucket

__all__ = ["Proxy", "proxy_of"]

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


class Proxy(ThreadingHTTPServer):
    """The proxy; its faults and rate can be changed at any time.

    Attributes
    ----------
    upstream : str
        Host and port of the emulator.
    faults : list of `Fault`
        What goes wrong.
    rate : `Rate` or None
        Above which PUT-class requests are refused.
    completed : set of str
        Uploads that are complete, and so are gone.
    foreign : dict of str to `ForeignBucket`
        Buckets of other accounts, by name.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.rate: Rate | None = None
        self.completed: set[str] = set()
        self.foreign: dict[str, ForeignBucket] = {}

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault_of(self, operation: str) -> Kind | None:
        """Return the fault of a request, or None."""
        if self.rate is not None and operation.startswith(_PUT_CLASS) and self.rate.is_exceeded():
            return Kind.SLOW_DOWN
        return next((fault.kind for fault in self.faults if fault.befalls(operation)), None)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that close the connection."""


_PUT_CLASS = ("Put", "Create", "Upload", "Complete")


@contextmanager
def proxy_of(endpoint: str) -> Iterator[Proxy]:
    """Start a proxy in front of an emulator and yield it."""
    proxy = Proxy(urlsplit(endpoint).netloc)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy
    _OPERATIONS: ClassVar = {"HEAD": "HeadObject", "GET": "GetObject", "PUT": "PutObject"}

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self._body()
        operation = self._operation()
        foreign = self._foreign()
        if foreign is not None and foreign.refuses(self.command, self.path, self.headers):
            self._refuse(403, "AccessDenied")
            return
        kind = self.server.fault_of(operation)
        if kind in REFUSALS:
            self._refuse(*REFUSALS[kind])
            return
        if operation == "CompleteMultipartUpload" and self.path in self.server.completed:
            self._refuse(404, "NoSuchUpload")  # as S3 may answer; emulators do not
            return
        if kind is Kind.CUT:
            self._cut()
            return
        status, content, headers = self._forwarded(body)
        if status == 404 and foreign is not None:
            self._refuse(
                403, "AccessDenied"
            )  # without s3:ListBucket, S3 answers 403 for a missing key
            return
        if operation == "CompleteMultipartUpload" and b"<Error>" not in content:
            self.server.completed.add(self.path)
        if kind is Kind.LOST:
            self._cut()
        else:
            self._answer(status, content, headers, is_broken=kind is Kind.BROKEN)

    def _refuse(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>by choice</Message></Error>"
        self._answer(status, b"" if self.command == "HEAD" else text.encode(), [])

    def _foreign(self) -> ForeignBucket | None:
        """The bucket of another account that is read or copied from."""
        source = self.headers.get("x-amz-copy-source")
        name = unquote(source or urlsplit(self.path).path).strip("/").split("/")[0]
        return self.server.foreign.get(name)

    def _operation(self) -> str:
        """The name of the operation in S3's API."""
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if self.command == "POST":
            return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
        if self.command == "DELETE":
            return "AbortMultipartUpload"
        if "partNumber" in query:
            return "UploadPartCopy" if "x-amz-copy-source" in self.headers else "UploadPart"
        return self._OPERATIONS[self.command]

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(line := self.rfile.readline().split(b";")[0], 16):
            pieces.append(line.strip() + b"\r\n" + self.rfile.read(size + 2))
        trailer = b"0\r\n"
        while line := self.rfile.readline().strip():
            trailer += line + b"\r\n"
        return b"".join([*pieces, trailer, b"\r\n"])

    def _forwarded(self, body: bytes) -> tuple[int, bytes, list[tuple[str, str]]]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=120)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP or name.lower() == "transfer-encoding":
                upstream.putheader(name, value)
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body)
        answer = upstream.getresponse()
        content = answer.read()
        length = answer.getheader("Content-Length")
        headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP_BY_HOP]
        if self.command == "HEAD" and length is not None:
            headers.append(("Content-Length", length))
        upstream.close()
        return answer.status, content, headers

    def _answer(
        self, status: int, content: bytes, headers: list[tuple[str, str]], is_broken: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        elif not headers:
            self.send_header("Content-Length", "0")
        self.end_headers()
        if is_broken:
            self.wfile.write(content[: len(content) // 2])
            self._cut()
        else:
            self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass
