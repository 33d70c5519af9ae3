"""Hosts as pods of Kubernetes deployments: their number is changed, the cluster does the rest.

A place is a deployment. A pod's name is also the name of the node in its host's heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from callboard.controller.provisioning.packages import package, unusable
from callboard.controller.provisioning.port import Provided
from callboard.infra import subjects
from callboard.infra.errors import ProvisionFailed
from callboard.infra.messages.registry import ActorInfo

LOOK_EVERY = 2.0
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""The annotation by which a pod goes first when there are to be fewer."""
_FIRST = "-1000"
_TIMEOUT = 10.0
_ATTEMPTS = 5
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MERGE = "application/merge-patch+json"
_OVER = frozenset({"Succeeded", "Failed"})
_T = TypeVar("_T")


class KubernetesDeployments:
    """Hosts as pods of deployments that exist already.

    Args:
        deployments: actor and deployment; of several for one actor the first is the default.
        most: pods at one time.
        namespace: of the deployments; empty: the pod's own, or that of the kubeconfig.
        kubeconfig: a file; None: the pod's service account, else the usual file.
    """

    def __init__(
        self,
        deployments: Sequence[tuple[str, str]],
        most: int,
        namespace: str = "",
        kubeconfig: Path | None = None,
    ) -> None:
        self.every = LOOK_EVERY
        self.most = most
        self.places: dict[str, list[str]] = {}
        self.capacity: dict[str, dict[str, float]] = {}
        for actor, name in deployments:
            self.places.setdefault(subjects.token("actor", actor), []).append(name)
        self._namespace = namespace
        self._kubeconfig = kubeconfig
        self._selectors: dict[str, str] = {}
        self._client: Any = None
        self._http: Any = None
        self._api: Any = None
        self._apps: Any = None
        self._core: Any = None

    async def start(self) -> list[ActorInfo]:
        """Find the cluster and the deployments.

        Raises:
            ProvisionerUnusable: the package, the cluster or a deployment cannot be used.
        """
        config = await asyncio.to_thread(package, "kubernetes", "kubernetes.aio.config")
        self._client = await asyncio.to_thread(package, "kubernetes", "kubernetes.aio.client")
        self._http = await asyncio.to_thread(package, "kubernetes", "aiohttp")
        try:
            await self._open(config)
        except config.ConfigException as error:
            raise unusable("kubernetes", error) from error
        self._apps, self._core = self._client.AppsV1Api(self._api), self._client.CoreV1Api(self._api)
        for name in {one for names in self.places.values() for one in names}:
            try:
                asked = self._apps.read_namespaced_deployment(
                    name, self._namespace, _request_timeout=_TIMEOUT
                )
                found = await self._ask(name, asked)
            except ProvisionFailed as error:
                raise unusable("kubernetes", error) from error
            labels = found.spec.selector.match_labels or {}
            if not labels:
                raise unusable("kubernetes", f"deployment {name} selects its pods by no labels")
            self._selectors[name] = ",".join(f"{key}={value}" for key, value in labels.items())
        return []

    async def _open(self, config: Any) -> None:
        made = self._client.Configuration()
        own = "" if self._kubeconfig is not None else await asyncio.to_thread(_own_namespace)
        if own:
            config.load_incluster_config(made)
            self._namespace = self._namespace or own
        else:
            file = None if self._kubeconfig is None else str(self._kubeconfig)
            await config.load_kube_config(file, client_configuration=made)
            _, active = config.list_kube_config_contexts(file)
            self._namespace = self._namespace or active["context"].get("namespace") or "default"
        self._api = self._client.ApiClient(made)

    async def stop(self) -> None:
        """Let go of the cluster; pods go on. Idempotent."""
        if self._api is not None:
            await self._api.close()

    def lead(self) -> None:
        """Nothing is done by itself."""

    def lead_no_more(self) -> None:
        """What has been started is seen by whoever leads next."""

    async def look(self) -> list[Provided]:
        """The pods of each deployment, and those that it is still to make."""
        found = []
        for actor, names in self.places.items():
            for name in names:
                found += await self._pods(actor, name)
        return found

    async def _pods(self, actor: str, name: str) -> list[Provided]:
        scale = await self._scale(name)
        listed = await self._ask(
            name,
            self._core.list_namespaced_pod(
                self._namespace, label_selector=self._selectors[name], _request_timeout=_TIMEOUT
            ),
        )
        found = []
        for pod in listed.items:
            if pod.status.phase not in _OVER:
                node, ending = pod.metadata.name, pod.metadata.deletion_timestamp is not None
                found.append(Provided(node, actor, name, node, ending=ending))
        there = sum(not one.ending for one in found)
        missing = max(0, (scale.spec.replicas or 0) - there)
        return found + [Provided(f"{name}+{number}", actor, name) for number in range(missing)]

    async def provision(self, actor: str, where: str) -> None:
        """One replica more."""
        await self._add(where, 1)

    async def kill(self, host: Provided) -> None:
        """One replica less; this pod goes first: SIGTERM, and SIGKILL when its grace period is over."""
        body = {"metadata": {"annotations": {DELETION_COST: _FIRST}}}
        await self._ask(
            host.name,
            self._core.patch_namespaced_pod(
                host.name, self._namespace, body, _content_type=_MERGE, _request_timeout=_TIMEOUT
            ),
        )
        await self._add(host.where, -1)

    async def _scale(self, name: str) -> Any:
        asked = self._apps.read_namespaced_deployment_scale(name, self._namespace, _request_timeout=_TIMEOUT)
        return await self._ask(name, asked)

    async def _add(self, name: str, count: int) -> None:
        """Change the number of replicas, unless somebody else does meanwhile; then once more."""
        for attempt in range(_ATTEMPTS):
            scale = await self._scale(name)
            scale.spec.replicas = max(0, (scale.spec.replicas or 0) + count)
            try:
                await self._ask(
                    name,
                    self._apps.replace_namespaced_deployment_scale(
                        name, self._namespace, scale, _request_timeout=_TIMEOUT
                    ),
                )
                return
            except ProvisionFailed as error:
                cause = error.__cause__
                if getattr(cause, "status", 0) != 409 or attempt == _ATTEMPTS - 1:
                    raise

    async def _ask(self, what: str, asked: Awaitable[_T]) -> _T:
        """Wait for an answer of the cluster.

        Raises:
            ProvisionFailed: it refuses, or cannot be reached.
        """
        try:
            return await asked
        except (self._client.ApiException, self._http.ClientError, OSError, ValueError) as error:
            problem = getattr(error, "reason", "") or str(error) or type(error).__name__
            raise ProvisionFailed(
                f"the cluster has not done it for {what}: {problem}",
                what=what,
                where=self._namespace,
                problem=problem,
            ) from error


def _own_namespace() -> str:
    """The namespace of the pod in which this process runs; empty: it runs in none."""
    return _NAMESPACE_FILE.read_text("utf-8").strip() if _NAMESPACE_FILE.is_file() else ""
