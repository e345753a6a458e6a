"""A stand-in for the hub on loopback, in the hub's own protocol, that misbehaves on demand.

Two servers, as in real life: the hub itself, and a store on another port to which large files are redirected (the token
must not follow there). ``python tests/hub/standin.py FOLDER`` serves ``FOLDER/models/ORG/NAME/…`` and
``FOLDER/datasets/ORG/NAME/…`` until it is stopped.
"""

import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from standin_repos import Fault, Repo, Seen, read_folder, tree_entry

KINDS = {"models": "", "datasets": "datasets/"}
CHUNK = 64 * 1024


class StandIn:
    """The two servers; use it as a context manager."""

    def __init__(self) -> None:
        self.models: dict[str, Repo] = {}
        self.datasets: dict[str, Repo] = {}
        self.accounts: dict[str, str] = {}
        """Token → account."""
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self._servers = [self._server(store=False), self._server(store=True)]
        ports = [server.server_address[1] for server in self._servers]
        self.url, self.store_url = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"

    def _server(self, *, store: bool) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "store": store})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        return server

    def __enter__(self) -> "StandIn":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fail(self, pattern: str, **what: Any) -> Fault:
        self.faults.append(Fault(pattern, **what))
        return self.faults[-1]

    def fault(self, path: str, *kinds: str) -> Fault | None:
        return next((f for f in self.faults if any(getattr(f, k) for k in kinds) and f.take(path)), None)

    def find(self, kind: str, name: str) -> Repo | None:
        return (self.models if kind == "models" else self.datasets).get(name)

    def blob(self, digest: str) -> bytes | None:
        repos = [*self.models.values(), *self.datasets.values()]
        return next((c for r in repos for c in r.files.values() if hashlib.sha256(c).hexdigest() == digest), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn
    store: bool

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:  # noqa: N802 - the name that http.server calls
        self._answer()

    def do_GET(self) -> None:  # noqa: N802
        self._answer()

    def do_POST(self) -> None:  # noqa: N802
        self._answer()

    @property
    def token(self) -> str | None:
        return (self.headers.get("authorization") or "").removeprefix("Bearer ").strip() or None

    def _answer(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        self.body = self.rfile.read(size)
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.seen.append(Seen(self.command, path, self.token, self.headers.get("range"), self.store))
        if fault := self.hub.fault(f"{self.command} {path}", "status"):
            return self._send(fault.status, b"no", fault.headers)
        if self.store:
            content = self.hub.blob(path.rsplit("/", 1)[-1])
            return self._send(404, b"") if content is None else self._send_file(path, content, {})
        if path == "/api/whoami-v2":
            return self._whoami()
        api = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(auth-check|revision|tree|paths-info)(?:/(.+))?)?", path
        )
        if api:
            return self._api(*api.groups(), parse_qs(url.query))
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if file:
            return self._resolve("datasets" if file[1] else "models", file[2], file[3], file[4])
        return self._send(404, b"")

    def _whoami(self) -> None:
        account = self.hub.accounts.get(self.token or "")
        if account is None:
            return self._error(401, "", "Invalid credentials in Authorization header")
        return self._json({"type": "user", "name": account, "auth": {"accessToken": {"role": "read"}}})

    def _refused(self, kind: str, name: str) -> bool:
        """Answer like the hub: unknown and private look alike, gated is reported as such."""
        repo = self.hub.find(kind, name)
        if self.token and self.token not in self.hub.accounts:
            self._error(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and self.token not in repo.allowed):
            self._error(404 if self.token else 401, "RepoNotFound", "Repository not found")
        elif repo.gated and self.token is None:
            self._error(401, "GatedRepo", f"Access to {kind[:-1]} {name} is restricted. You must be authenticated.")
        elif repo.gated and self.token not in repo.allowed:
            self._error(403, "GatedRepo", f"Access to {kind[:-1]} {name} is restricted and you are not in its list.")
        else:
            return False
        return True

    def _api(self, kind: str, name: str, verb: str | None, rest: str | None, query: dict[str, list[str]]) -> None:
        repo = self.hub.find(kind, name)
        gated = repo is not None and repo.gated
        if not (gated and verb in (None, "revision")) and self._refused(kind, name):
            return None  # a gated repository's card is public, its files are not
        assert repo is not None
        revision, _, folder = (rest or "main").partition("/")
        if verb != "auth-check" and not repo.knows(revision):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if verb in (None, "revision"):
            return self._json(self._info(name, repo, "blobs" in query))
        if verb == "tree":
            return self._json(self._tree(repo, folder, query.get("recursive", ["false"])[0].lower() == "true"))
        if verb == "paths-info":
            sent = json.loads(self.body) if self.body.startswith(b"{") else parse_qs(self.body.decode())
            return self._json([tree_entry(p, repo.files[p]) for p in sent.get("paths", []) if p in repo.files])
        return self._json({})

    def _info(self, name: str, repo: Repo, blobs: bool) -> dict[str, Any]:
        files = []
        for path, content in sorted(repo.files.items()):
            entry = tree_entry(path, content)
            lfs = (
                {"lfs": {"sha256": entry["lfs"]["oid"], "size": len(content), "pointerSize": 1}}
                if "lfs" in entry
                else {}
            )
            more = {"size": len(content), "blobId": entry["oid"], **lfs} if blobs else {}
            files.append({"rfilename": path, **more})
        gated = "manual" if repo.gated else False
        return {
            "_id": "1",
            "id": name,
            "sha": repo.commit,
            "private": False,
            "gated": gated,
            "tags": [],
            "siblings": files,
        }

    def _tree(self, repo: Repo, folder: str, recursive: bool) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        prefix = f"{folder}/" if folder else ""
        for path, content in sorted(repo.files.items()):
            if path.startswith(prefix):
                first, _, more = path[len(prefix) :].partition("/")
                if more and not recursive:
                    found[prefix + first] = {"type": "directory", "path": prefix + first, "oid": "0" * 40, "size": 0}
                else:
                    found[path] = tree_entry(path, content)
        return list(found.values())

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        if self._refused(kind, name):
            return None
        repo = self.hub.find(kind, name)
        assert repo is not None
        if not repo.knows(revision):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit = {"X-Repo-Commit": repo.commit}
        if file not in repo.files:
            return self._error(404, "EntryNotFound", "Entry not found", commit)
        content = repo.files[file]
        entry = tree_entry(file, content)
        if "lfs" not in entry:
            return self._send_file(self.path, content, {"ETag": f'"{entry["oid"]}"', **commit})
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{entry["lfs"]["oid"]}"'}
        location = f"{self.hub.store_url}/{name}/{file}/{entry['lfs']['oid']}"
        return self._send(302, b"", {"Location": location, **linked, **commit})

    def _send_file(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range") or "")
        if asked and int(asked[1]) < len(content):
            start = int(asked[1])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.send_response(206 if start else 200)
        for key, value in {**headers, "Content-Length": str(len(content) - start), "Accept-Ranges": "bytes"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.fault(path, "corrupt"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        cut, slow = self.hub.fault(path, "cut_after"), self.hub.fault(path, "bytes_per_s")
        end = min(len(content), start + cut.cut_after) if cut else len(content)
        step = max(1, slow.bytes_per_s // 20) if slow else CHUNK
        try:
            for at in range(start, end, step):
                self.wfile.write(content[at : min(end, at + step)])
                self.wfile.flush()
                time.sleep(0.05 if slow else 0)
        except ConnectionError:
            pass
        if cut:
            self.close_connection = True
            self.connection.shutdown(2)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, more: dict[str, str] | None = None) -> None:
        named = {"X-Error-Code": code} if code else {}
        self._send(
            status, json.dumps({"error": message}).encode(), {**named, "X-Error-Message": message, **(more or {})}
        )

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


if __name__ == "__main__":
    with StandIn() as hub:
        hub.models, hub.datasets = (read_folder(Path(sys.argv[1]) / kind) for kind in KINDS)
        print(f"HF_ENDPOINT={hub.url}", flush=True)
        threading.Event().wait()
