"""Stand-ins for a Docker engine and a Kubernetes cluster: their HTTP APIs on loopback, as far as they are used.

What they run are real hosts, as processes that believe to have a host name of their own. The client libraries
are the real ones, and so is the HTTP between them. They say nothing of how an engine really behaves.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

NAMED = "import platform, sys; name = sys.argv.pop(1); platform.node = lambda: name; import callboard.cli as c; c.main()"
ENDS_WITHIN = 30.0
Answer = tuple[int, Any]


class Engine:
    """An HTTP server whose requests a subclass answers.

    Attributes:
        asked: method and path of each request that changes something.
    """

    ROUTES: ClassVar[list[tuple[str, str]]] = []
    """Method and path of each request that is answered, and by which method of the subclass, as its group name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.lock = threading.RLock()
        self._processes: list[subprocess.Popen[bytes]] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                status, data = engine.answer(self.command, self.path, body)
                raw = (
                    data
                    if isinstance(data, bytes)
                    else json.dumps(data).encode()
                    if data is not None
                    else b""
                )
                self.send_response(status)
                kind = "application/octet-stream" if isinstance(data, bytes) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for process in self._processes:
            process.kill()
            process.wait()

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """Answer a request."""
        parts = urlsplit(path)
        if method != "GET":
            self.asked.append(f"{method} {parts.path}")
        for pattern, name in self.ROUTES:
            found = re.fullmatch(pattern, f"{method} {parts.path}")
            if found:
                work: Callable[..., Answer] = getattr(self, name)
                return work(parse_qs(parts.query), body, *found.groups())
        return 404, {"message": f"no {method} {parts.path}"}

    def run(self, name: str, words: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Run a host that believes to be on a machine of this name."""
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-c", NAMED, name, *words],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self._processes.append(process)
        return process


class Container:
    """A container of the stand-in."""

    def __init__(self, number: int, name: str, body: dict[str, Any]) -> None:
        self.id = f"{number:064x}"
        self.name = name
        self.body = body
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> str:
        """As an engine tells it."""
        if self.process is None:
            return "created"
        return "running" if self.process.poll() is None else "exited"


class DockerEngine(Engine):
    """The API of Docker 27, as far as it is used; it restarts nothing."""

    _C = r"/v[\d.]+/containers"
    ROUTES: ClassVar[list[tuple[str, str]]] = [
        (r"GET /version", "version"),
        (r"GET /v[\d.]+/info", "info"),
        (rf"GET {_C}/json", "listed"),
        (rf"POST {_C}/create", "create"),
        (rf"GET {_C}/(\w+)/json", "inspect"),
        (rf"POST {_C}/(\w+)/start", "start"),
        (rf"POST {_C}/(\w+)/stop", "stop"),
        (rf"POST {_C}/(\w+)/wait", "wait"),
        (rf"GET {_C}/(\w+)/logs", "logs"),
        (rf"DELETE {_C}/(\w+)", "remove"),
    ]

    def __init__(self, folder: Path, image: str = "shop", cores: int = 6) -> None:
        super().__init__(folder)
        self.image, self.cores = image, cores
        self.containers: dict[str, Container] = {}
        self.number = 0
        self.unstartable: tuple[str, ...] = ()
        """Ends of applications whose containers can be created and not started."""

    def version(self, query: Any, body: Any) -> Answer:
        """The newest that there is."""
        return 200, {"ApiVersion": "1.44", "MinAPIVersion": "1.24", "Version": "27.0.0"}

    def info(self, query: Any, body: Any) -> Answer:
        """Of the machine."""
        return 200, {"Name": "engine-1", "NCPU": self.cores, "MemTotal": 8_000_000_000}

    def create(self, query: Any, body: dict[str, Any]) -> Answer:
        """Nothing runs yet."""
        if body["Image"] != self.image:
            return 404, {"message": f"No such image: {body['Image']}"}
        with self.lock:
            self.number += 1
            name = query.get("name", [f"unnamed_{self.number}"])[0]
            made = Container(self.number, name, body)
            self.containers[made.id] = made
        return 201, {"Id": made.id, "Warnings": []}

    def listed(self, query: dict[str, list[str]], body: Any) -> Answer:
        """Those with all of the labels."""
        wanted = json.loads(query["filters"][0])["label"]
        with self.lock:
            return 200, [
                {"Id": one.id, "Names": [f"/{one.name}"], "Labels": one.body["Labels"], "State": one.state}
                for one in self.containers.values()
                if set(wanted) <= {f"{key}={value}" for key, value in (one.body.get("Labels") or {}).items()}
            ]

    def inspect(self, query: Any, body: Any, container: str) -> Answer:
        """One of them."""
        if container not in self.containers:
            return 404, {"message": f"No such container: {container}"}
        one = self.containers[container]
        config = {"Labels": one.body.get("Labels") or {}, "Image": self.image, "Tty": False}
        return 200, {"Id": one.id, "Name": f"/{one.name}", "State": {"Status": one.state}, "Config": config}

    def start(self, query: Any, body: Any, container: str) -> Answer:
        """Its entry point is ``callboard``."""
        one = self.containers[container]
        if one.body["Cmd"][1].endswith(self.unstartable):
            return 500, {"message": "could not select device driver"}
        environment = dict(pair.split("=", 1) for pair in one.body["Env"])
        with self.lock:
            if one.process is None:
                one.process = self.run(one.body.get("Hostname") or one.name, one.body["Cmd"], environment)
        return 204, None

    def stop(self, query: dict[str, list[str]], body: Any, container: str) -> Answer:
        """SIGTERM, and SIGKILL when the time is over."""
        process = self.containers[container].process
        assert process is not None
        process.terminate()
        try:
            process.wait(float(query["t"][0]))
        except subprocess.TimeoutExpired:
            process.kill()
        return 204, None

    def wait(self, query: Any, body: Any, container: str) -> Answer:
        """For its end."""
        process = self.containers[container].process
        assert process is not None
        return 200, {"StatusCode": process.wait(ENDS_WITHIN)}

    def logs(self, query: dict[str, list[str]], body: Any, container: str) -> Answer:
        """In frames, each with its stream and size."""
        one, frames = self.containers[container], b""
        for number, stream, suffix in ((1, "stdout", "out"), (2, "stderr", "err")):
            if query.get(stream) == ["1"]:
                text = (self.folder / f"{one.body.get('Hostname') or one.name}.{suffix}").read_bytes()
                frames += struct.pack(">BxxxL", number, len(text)) + text
        return 200, frames

    def remove(self, query: Any, body: Any, container: str) -> Answer:
        """One that has ended."""
        with self.lock:
            if self.containers.pop(container, None) is None:
                return 404, {"message": f"No such container: {container}"}
        return 204, None


class Cluster(Engine):
    """The API of Kubernetes 1.3x, as far as it is used, with one deployment; it makes its pods at once."""

    _D = r"/apis/apps/v1/namespaces/shop/deployments/(\w+)"
    _P = r"/api/v1/namespaces/shop/pods"
    ROUTES: ClassVar[list[tuple[str, str]]] = [
        (rf"GET {_D}", "deployment"),
        (rf"GET {_D}/scale", "scale"),
        (rf"PUT {_D}/scale", "put_scale"),
        (rf"GET {_P}", "listed"),
        (rf"PATCH {_P}/([\w-]+)", "patch"),
    ]

    def __init__(self, folder: Path, words: list[str], environment: dict[str, str]) -> None:
        super().__init__(folder)
        self.words, self.environment = words, environment
        self.replicas = self.version = self.number = self.conflicts = 0
        self.pods: dict[str, subprocess.Popen[bytes]] = {}
        self.ending: set[str] = set()
        self.costs: dict[str, int] = {}

    def kubeconfig(self) -> Path:
        """A file that names this cluster."""
        file = self.folder / "kubeconfig"
        context = {"cluster": "c", "user": "u", "namespace": "shop"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://{self.address}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "here", "context": context}],
            "current-context": "here",
        }
        file.write_text(json.dumps(config))
        return file

    def deployment(self, query: Any, body: Any, name: str) -> Answer:
        """There is one."""
        if name != "hosts":
            return 404, {"kind": "Status", "message": f"deployments {name!r} not found", "code": 404}
        pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "host"}]}}
        spec = {"selector": {"matchLabels": {"app": name}}, "template": pod, "replicas": self.replicas}
        return 200, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}

    def scale(self, query: Any, body: Any, name: str) -> Answer:
        """How many there are to be."""
        meta = {"name": name, "namespace": "shop", "resourceVersion": str(self.version)}
        spec = {"replicas": self.replicas}
        scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": spec}
        return 200, {**scale, "status": {"replicas": len(self.pods)}}

    def put_scale(self, query: Any, body: dict[str, Any], name: str) -> Answer:
        """Unless somebody else has changed it."""
        with self.lock:
            if self.conflicts:
                self.conflicts -= 1
                self.version += 1
            if body["metadata"]["resourceVersion"] != str(self.version):
                return 409, {"kind": "Status", "message": "the object has been modified", "code": 409}
            self.version += 1
            self.replicas = body["spec"]["replicas"]
            self._follow()
        return self.scale(query, body, name)

    def _follow(self) -> None:
        """As many pods as there are to be; the cheapest go first."""
        self._collect()
        there = [name for name in self.pods if name not in self.ending]
        for _ in range(self.replicas - len(there)):
            self.number += 1
            name = f"hosts-{self.number}"
            self.pods[name] = self.run(name, self.words, self.environment)
        there.sort(key=lambda name: self.costs.get(name, 0))
        for name in there[: max(0, len(there) - self.replicas)]:
            self.ending.add(name)
            self.pods[name].terminate()

    def _collect(self) -> None:
        for name in [name for name in self.ending if self.pods[name].poll() is not None]:
            del self.pods[name]
            self.ending.discard(name)

    def listed(self, query: dict[str, list[str]], body: Any) -> Answer:
        """Those that there are."""
        assert query["labelSelector"] == ["app=hosts"]
        with self.lock:
            self._collect()
            items = [self._pod(name) for name in self.pods]
        return 200, {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}

    def _pod(self, name: str) -> dict[str, Any]:
        meta = {
            "name": name,
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if name in self.ending else {}),
        }
        spec = {"containers": [{"name": "host"}]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": spec,
            "status": {"phase": "Running"},
        }

    def patch(self, query: Any, body: dict[str, Any], name: str) -> Answer:
        """What it costs to delete."""
        (cost,) = body["metadata"]["annotations"].values()
        self.costs[name] = int(cost)
        return 200, self._pod(name)
