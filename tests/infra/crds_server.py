"""A simulated CRDS server: it answers the JSON-RPC calls of `crds` from a CRDS cache."""

import ast
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class CrdsServer:
    """A running server, and the files for which it fails."""

    root: Path
    url: str = ""
    lies: set[str] = field(default_factory=set)  # sent with other content
    stalls: set[str] = field(default_factory=set)  # it waits after one half
    goes_away: set[str] = field(default_factory=set)  # it disconnects after one half
    stumbles: set[str] = field(default_factory=set)  # it disconnects once after one half
    build_answer: bytes | None = None  # to get_build_context, instead of JSON-RPC
    sent: dict[str, int] = field(default_factory=dict)  # number of requests
    builds: dict[tuple[str, ...], str] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        info = ast.literal_eval((self.root / "config" / "jwst" / "server_config").read_text())
        for kind in ("mapping_url", "reference_url"):
            info[kind] = {"unchecked": {"jwst": f"{self.url}/files/"}}
        return info

    def content(self, name: str) -> bytes:
        self.sent[name] = self.sent.get(name, 0) + 1
        (path,) = (p for p in self.root.glob(f"*/jwst/**/{name}") if p.is_file())
        content = path.read_bytes()
        return content[:-1] + b"?" if name in self.lies else content


@contextmanager
def crds_server(root: Path) -> Iterator[CrdsServer]:
    server = CrdsServer(root)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if call["method"] == "get_build_context" and server.build_answer is not None:
                self.answer(server.build_answer)
                return
            results = {
                "get_server_info": server.info,
                "get_build_context": lambda *asked: server.builds[asked],
            }
            result = results[call["method"]](*call.get("params", ()))
            answer = {"id": call["id"], "result": result, "error": None}
            self.answer(json.dumps(answer).encode())

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            content = server.content(name)
            if name not in server.stalls | server.goes_away | server.stumbles:
                self.answer(content)
                return
            server.stumbles.discard(name)
            self.answer(content[: len(content) // 2], length=len(content))
            if name in server.stalls:
                time.sleep(3)

        def answer(self, content: bytes, length: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(length or len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    server.url = f"http://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        running.shutdown()
        running.server_close()
