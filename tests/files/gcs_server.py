"""A server that speaks what gcsfs and TensorStore use of Google's storage API, on the folder of a `bucket.Bucket`.

Objects appear whole, `ifGenerationMatch` is exact, listings come in pages, nothing is renamed.
"""

import datetime
import email
import json
import os
import pathlib
import re
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = 20  # objects in a page of a listing


class Server(ThreadingHTTPServer):
    """Serves from the moment it is made until `close`. root: the folder, which may be changed.

    environment: what leads gcsfs, google-cloud-storage and TensorStore here, without asking anybody who they are.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.url = pathlib.Path(), f"http://127.0.0.1:{self.server_port}"
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_CLOUD_PROJECT": "nobody",
            "NO_GCE_CHECK": "true",
            "GCE_METADATA_HOST": "127.0.0.1:1",  # nobody listens there
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # which kind of bucket it is, is asked by gRPC
        }
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.uploads: dict[str, tuple[str, dict, bytearray]] = {}  # resumable ones under way
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """A client may go away before its answer comes; what else goes wrong here is seen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Ends."""
        self.shutdown()
        self.server_close()

    def place(self, key: str) -> pathlib.Path:
        """The file of an object, as a `Bucket` has it. key: with the bucket's name."""
        return self.root / urllib.parse.quote(key, safe="")


class _Refused(Exception):
    """An answer that is an error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_) -> None:
        """Standard error is for tests."""

    def _answer(self, status: int, content: bytes | dict = b"", **headers: str) -> None:
        if isinstance(content, dict):
            content, headers = json.dumps(content).encode(), {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _handle(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {urllib.parse.unquote(self.path)}")
        match = re.fullmatch(r"/(?:(upload|download)/)?storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", parts.path)
        if match is None:
            return self._answer(501, {"error": {"code": 501, "message": f"{self.command} {self.path}"}})
        bucket, key = match[2], urllib.parse.unquote(match[3] or "")
        try:
            if match[1] == "upload":
                self._upload(bucket, asked, body)
            elif self.command == "DELETE":
                with self.server.lock:
                    self._check(f"{bucket}/{key}", asked)
                    self.server.place(f"{bucket}/{key}").unlink(missing_ok=True)
                self._answer(204)
            elif self.command != "GET":
                self._answer(501, {"error": {"code": 501, "message": f"{self.command} {self.path}"}})
            elif key:
                self._get(bucket, key, asked)
            elif parts.path.endswith("/o"):
                self._answer(200, self._list(bucket, asked))
            else:
                self._answer(200, {"kind": "storage#bucket", "name": bucket, "id": bucket})
        except _Refused as refused:
            status, message = refused.args
            self._answer(status, b"" if status == 304 else {"error": {"code": status, "message": message}})

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _generation(self, key: str) -> int:
        try:
            return self.server.place(key).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _check(self, key: str, asked: dict) -> int:
        """The generation of an object; refuses what was asked of another one."""
        found = self._generation(key)
        if asked.get("ifGenerationMatch", str(found)) != str(found):
            raise _Refused(412, "conditionNotMet")
        if "ifGenerationNotMatch" in asked and asked["ifGenerationNotMatch"] == str(found):
            raise _Refused(304, "notModified")
        if not found and self.command != "POST":
            raise _Refused(404, f"No such object: {key}")
        return found

    def _facts(self, bucket: str, key: str) -> dict:
        generation = self._generation(f"{bucket}/{key}")
        time = datetime.datetime.fromtimestamp(generation / 1e9, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": key,
            "generation": str(generation),
            "metageneration": "1",
            "size": str(self.server.place(f"{bucket}/{key}").stat().st_size),
            "timeCreated": time,
            "updated": time,
        }

    def _get(self, bucket: str, key: str, asked: dict) -> None:
        with self.server.lock:
            generation = self._check(f"{bucket}/{key}", asked)
            if asked.get("alt") != "media":
                return self._answer(200, self._facts(bucket, key))
            content = self.server.place(f"{bucket}/{key}").read_bytes()
        facts = {"x_goog_generation": str(generation), "x_goog_metageneration": "1"}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return self._answer(200, content, **facts)
        first = int(wanted[1]) if wanted[1] else max(len(content) - int(wanted[2]), 0)
        last = min(int(wanted[2]), len(content) - 1) if wanted[1] and wanted[2] else len(content) - 1
        if first > last:
            raise _Refused(416, "requestedRangeNotSatisfiable")
        part = {"Content_Range": f"bytes {first}-{last}/{len(content)}"}
        return self._answer(206, content[first : last + 1], **facts, **part)

    def _list(self, bucket: str, asked: dict) -> dict:
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        names = [urllib.parse.unquote(file.name) for file in self.server.root.iterdir() if file.is_file()]
        keys = sorted(name.removeprefix(f"{bucket}/") for name in names if name.startswith(f"{bucket}/{prefix}"))
        found: dict[str, bool] = {}  # whether it is a prefix
        for key in keys:
            if not asked.get("startOffset", "") <= key or (asked.get("endOffset") and key >= asked["endOffset"]):
                continue
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key[len(prefix) :], "", "")
            found[prefix + head + cut] = bool(cut)
        left = [name for name in found if name > asked.get("pageToken", "")]
        page = left[: min(int(asked.get("maxResults", PAGE)), PAGE)]
        answer = {"kind": "storage#objects", "items": [], "prefixes": []}
        for name in page:
            if found[name]:
                answer["prefixes"].append(name)
            elif self.server.place(f"{bucket}/{name}").exists():
                answer["items"].append(self._facts(bucket, name))
        return answer | ({"nextPageToken": page[-1]} if len(page) < len(left) else {})

    def _upload(self, bucket: str, asked: dict, body: bytes) -> None:
        kind = asked["uploadType"]
        if kind == "media":
            return self._answer(200, self._put(bucket, asked["name"], asked, body))
        if kind == "multipart":
            boundary = email.message_from_string(f"Content-Type: {self.headers['Content-Type']}").get_boundary()
            _, facts, rest = body.split(f"--{boundary}".encode(), 2)
            content = rest.rpartition(f"\n--{boundary}--".encode())[0].partition(b"\n\n")[2]
            name = json.loads(facts.partition(b"\n\n")[2])["name"]
            return self._answer(200, self._put(bucket, name, asked, content))
        if "upload_id" not in asked:
            upload = os.urandom(16).hex()
            self.server.uploads[upload] = (asked.get("name") or json.loads(body)["name"], asked, bytearray())
            where = f"{self.server.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={upload}"
            return self._answer(200, Location=where)
        name, first, content = self.server.uploads[asked["upload_id"]]
        content += body
        total = self.headers["Content-Range"].rpartition("/")[2]
        if total == "*" or len(content) < int(total):
            return self._answer(308, Range=f"bytes=0-{len(content) - 1}")
        return self._answer(200, self._put(bucket, name, first, bytes(content)))

    def _put(self, bucket: str, key: str, asked: dict, content: bytes) -> dict:
        aside = self.server.root / "aside" / os.urandom(8).hex()
        aside.parent.mkdir(exist_ok=True)
        aside.write_bytes(content)
        with self.server.lock:
            try:
                self._check(f"{bucket}/{key}", asked)
                aside.replace(self.server.place(f"{bucket}/{key}"))
            finally:
                aside.unlink(missing_ok=True)
            return self._facts(bucket, key)
