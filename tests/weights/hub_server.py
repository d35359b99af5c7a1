"""A hub on loopback: as much of Hugging Face's HTTP API as pulling and pushing models takes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPOSITORY = r"([\w.-]+/[\w.-]+)"


class Hub:
    """Repositories: commits by revision, files by commit.

    Attributes:
        requests: method and path of everything that was asked.
        refuse: a commit is answered with this status instead of being made.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, str]] = {}
        self.private: dict[str, bool] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.uploaded: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.refuse = 0
        self.url = ""

    def commit(self, repository: str, files: Mapping[str, bytes | None]) -> str:
        """Put files on top of main, and take those of None away; returns the hash of the commit."""
        revisions = self.repositories.setdefault(repository, {})
        all_of_them = self.commits.get(revisions.get("main", ""), {}) | dict(files)
        now = {name: content for name, content in all_of_them.items() if content is not None}
        told = json.dumps({name: hashlib.sha1(content).hexdigest() for name, content in sorted(now.items())})
        revisions["main"] = sha = hashlib.sha1(f"{repository}{told}".encode()).hexdigest()
        self.commits[sha] = now
        return sha

    def tag(self, repository: str, name: str) -> None:
        self.repositories[repository][name] = self.repositories[repository]["main"]

    def find(self, repository: str, revision: str) -> str | None:
        revisions = self.repositories[repository]
        return revisions.get(
            revision, revision if revision in revisions.values() or revision in self.commits else None
        )


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Its address while it runs."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer("GET")

    def do_HEAD(self) -> None:
        self.answer("HEAD")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def do_DELETE(self) -> None:
        self.answer("DELETE")

    def answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((method, path))
        for pattern, name in ROUTES:
            found = re.fullmatch(pattern, f"{method} {path}")
            if found:
                getattr(self, name)(*found.groups(), body=body)
                return
        self.send(404, {"error": f"no such route: {method} {path}"})

    def send(self, status: int, content: object = b"", **headers: str) -> None:
        plain = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(plain)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(plain)

    def locate(self, repository: str, revision: str) -> str | None:
        """The commit; without one, says why and gives None."""
        if repository not in self.hub.repositories:
            self.send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        sha = self.hub.find(repository, revision)
        if sha is None:
            self.send(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        return sha

    def info(self, repository: str, revision: str | None = None, *, body: bytes) -> None:
        if revision is None and self.hub.repositories.get(repository) == {}:
            self.send(200, {"id": repository, "siblings": []})
            return
        sha = self.locate(repository, revision or "main")
        if sha is not None:
            names = [{"rfilename": name} for name in self.hub.commits[sha]]
            self.send(200, {"id": repository, "sha": sha, "siblings": names})

    def tree(self, repository: str, revision: str, *, body: bytes) -> None:
        sha = self.locate(repository, revision)
        if sha is not None:
            files = self.hub.commits[sha].items()
            self.send(
                200,
                [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(content),
                        "oid": hashlib.sha1(content).hexdigest(),
                    }
                    for name, content in files
                ],
            )

    def resolve(self, repository: str, revision: str, name: str, *, body: bytes) -> None:
        sha = self.locate(repository, revision)
        if sha is None:
            return
        content = self.hub.commits[sha].get(name)
        if content is None:
            self.send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            return
        self.send(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=sha)

    def create(self, *, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self.send(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
            return
        self.hub.repositories[name] = {}
        self.hub.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.send(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def delete(self, *, body: bytes) -> None:
        asked = json.loads(body)
        self.hub.repositories.pop(f"{asked['organization']}/{asked['name']}", None)
        self.send(200, {})

    def validate(self, *, body: bytes) -> None:
        self.send(200, {"errors": [], "warnings": []})

    def preupload(self, repository: str, *, body: bytes) -> None:
        large = re.compile(r".*\.safetensors")
        self.send(
            200,
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if large.fullmatch(file["path"]) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in json.loads(body)["files"]
                ]
            },
        )

    def batch(self, repository: str, *, body: bytes) -> None:
        objects = [
            file | {"actions": {"upload": {"href": f"{self.hub.url}/large/{file['oid']}", "header": {}}}}
            for file in json.loads(body)["objects"]
        ]
        self.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str, *, body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.uploaded[oid] = body
        self.send(200, {})

    def make_commit(self, repository: str, *, body: bytes) -> None:
        if self.hub.refuse:
            self.send(self.hub.refuse, {"error": "you may not write here"})
            return
        files: dict[str, bytes | None] = {}
        for line in body.splitlines():
            said = json.loads(line)
            if said["key"] == "file":
                files[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            elif said["key"] == "lfsFile":
                files[said["value"]["path"]] = self.hub.uploaded[said["value"]["oid"]]
            elif said["key"] == "deletedFile":
                files[said["value"]["path"]] = None
        sha = self.hub.commit(repository, files)
        self.send(
            200, {"commitUrl": f"{self.hub.url}/{repository}/commit/{sha}", "commitOid": sha, "success": True}
        )


ROUTES = [
    (r"POST /api/repos/create", "create"),
    (r"DELETE /api/repos/delete", "delete"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"POST /api/models/{REPOSITORY}/preupload/main", "preupload"),
    (rf"POST /api/models/{REPOSITORY}/commit/main", "make_commit"),
    (rf"POST /{REPOSITORY}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /large/(\w+)", "upload"),
    (rf"GET /api/models/{REPOSITORY}", "info"),
    (rf"GET /api/models/{REPOSITORY}/revision/(.+)", "info"),
    (rf"GET /api/models/{REPOSITORY}/tree/([^/]+)", "tree"),
    (rf"(?:GET|HEAD) /{REPOSITORY}/resolve/([^/]+)/(.+)", "resolve"),
]
