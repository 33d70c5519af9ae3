"""Options of ``callboard controller`` that say how hosts are started and ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from cyclopts import Group, Parameter

from callboard.cli.exits import UsageError

if TYPE_CHECKING:
    from callboard.cli.common import Common
    from callboard.controller.provisioning.port import Provisioner

Kind = Literal["local", "docker", "kubernetes"]

_PROVISION = "What starts and ends hosts. By default processes here if --app is given, else nothing does."
_APP = "The application, as for 'callboard host': here, or in the image; may be given again."
_HOSTS = (
    "Hosts at one time, at most. By default the cores of the machine, or what min_instances ask for "
    "if that is more; for kubernetes there is no default."
)
_RESOURCE = "What there is for all of them together, as gpu=2; may be given again. By default as for a host."
_IMAGE = "docker: image with the application; it is not pulled."
_ENGINE = "docker: address of the container engine. By default DOCKER_HOST, else the local socket."
_HOST_NATS = "docker: address of the server as seen from a container. By default that of the controller."
_NETWORK = "docker: network of the containers."
_ENV = "docker: a variable for the containers, as NAME=VALUE; may be given again."
_VOLUME = "docker: a folder for the containers, as FROM:TO or FROM:TO:ro; may be given again."
_DEPLOYMENT = "kubernetes: whose hosts run an actor, as ACTOR=NAME; may be given again."
_NAMESPACE = "kubernetes: where the deployments are. By default that of the pod, or of the kubeconfig."
_KUBECONFIG = "kubernetes: a file. By default the pod's service account, else KUBECONFIG or ~/.kube/config."


def _many(text: str) -> Parameter:
    return Parameter(help=text, negative=())


@Parameter(name="*", group=Group("Starting and ending hosts", sort_key=5))
@dataclass(frozen=True)
class Provisioning:
    """How hosts are started and ended."""

    provision: Annotated[Kind | None, Parameter(help=_PROVISION)] = None
    app: Annotated[list[str] | None, _many(_APP)] = None
    hosts: Annotated[int, Parameter(help=_HOSTS, show_default=False)] = 0
    resource: Annotated[list[str] | None, _many(_RESOURCE)] = None
    image: Annotated[str, Parameter(help=_IMAGE, show_default=False)] = ""
    engine: Annotated[str, Parameter(help=_ENGINE, show_default=False)] = ""
    host_nats: Annotated[str, Parameter(help=_HOST_NATS, show_default=False)] = ""
    network: Annotated[str, Parameter(help=_NETWORK, show_default=False)] = ""
    env: Annotated[list[str] | None, _many(_ENV)] = None
    volume: Annotated[list[str] | None, _many(_VOLUME)] = None
    deployment: Annotated[list[str] | None, _many(_DEPLOYMENT)] = None
    namespace: Annotated[str, Parameter(help=_NAMESPACE, show_default=False)] = ""
    kubeconfig: Annotated[Path | None, Parameter(help=_KUBECONFIG)] = None

    def made(self, common: Common) -> Provisioner | None:
        """The provisioner that these options ask for; None: none.

        Raises:
            UsageError: an option is missing, or is of another provisioner.
            SettingsInvalid: an amount is none.
        """
        kind = self.provision or ("local" if self.app and not self.image else None)
        self._check(kind)
        if kind == "local":
            return self._local(common)
        if kind == "docker":
            return self._docker(common)
        return self._kubernetes() if kind == "kubernetes" else None

    def _check(self, kind: Kind | None) -> None:
        """Every option that is given counts, and none is missing."""
        for name, (needed, allowed) in _OPTIONS.items():
            given = bool(getattr(self, name))
            option = f"--{name.replace('_', '-')}"
            if given and kind not in allowed:
                raise UsageError(
                    f"{option} is for --provision {' or '.join(allowed)}: say so, or leave it out"
                )
            if kind in needed and not given:
                raise UsageError(f"--provision {kind} needs {option}, see 'callboard controller --help'")
        if self.hosts < 0:
            raise UsageError(f"--hosts must be 1 or more, not {self.hosts}")

    def _local(self, common: Common) -> Provisioner:
        from callboard.controller.provisioning.local import LocalProcesses
        from callboard.infra.settings import amounts

        settings = common.settings(resources=amounts(self.resource) if self.resource else None)
        options = ["--log-level", common.log_level or "info", *(["--json"] if common.json else [])]
        return LocalProcesses(self.app or [], settings, self.hosts, options)

    def _docker(self, common: Common) -> Provisioner:
        from callboard.controller.provisioning.docker import DockerContainers
        from callboard.infra.settings import amounts

        (app,) = self.app if self.app and len(self.app) == 1 else [""]
        if not app:
            raise UsageError("--provision docker needs one --app, the application in the image")
        settings = common.settings(nats_url=self.host_nats or common.nats)
        if _is_here(settings.nats_url) and self.network != "host":
            raise UsageError(
                f"containers do not find the server at {settings.nats_url}, which is their own loopback: say "
                "where it is with --host-nats, or give them the machine's network with --network host"
            )
        return DockerContainers(
            self.image,
            app,
            settings,
            most=self.hosts,
            resources=amounts(self.resource or []),
            engine=self.engine,
            network=self.network,
            environment=dict(_pair("--env", one) for one in self.env or []),
            volumes=self.volume or [],
        )

    def _kubernetes(self) -> Provisioner:
        from callboard.controller.provisioning.kubernetes import KubernetesDeployments

        pairs = [_pair("--deployment", one) for one in self.deployment or []]
        return KubernetesDeployments(pairs, self.hosts, self.namespace, self.kubeconfig)


_NOBODY: tuple[Kind, ...] = ()
_OPTIONS: dict[str, tuple[tuple[Kind, ...], tuple[Kind, ...]]] = {
    "app": (("local", "docker"), ("local", "docker")),
    "hosts": (("kubernetes",), ("local", "docker", "kubernetes")),
    "resource": (_NOBODY, ("local", "docker")),
    "image": (("docker",), ("docker",)),
    "engine": (_NOBODY, ("docker",)),
    "host_nats": (_NOBODY, ("docker",)),
    "network": (_NOBODY, ("docker",)),
    "env": (_NOBODY, ("docker",)),
    "volume": (_NOBODY, ("docker",)),
    "deployment": (("kubernetes",), ("kubernetes",)),
    "namespace": (_NOBODY, ("kubernetes",)),
    "kubeconfig": (_NOBODY, ("kubernetes",)),
}
"""Of each option: which provisioners need it, and which take it."""


def _is_here(urls: str) -> bool:
    hosts = {urlsplit(url if "//" in url else f"//{url}").hostname for url in urls.split(",")}
    return bool(hosts & {"127.0.0.1", "localhost", "::1"})


def _pair(option: str, given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{option} {given!r} cannot be used: give a name and a value, as NAME=VALUE")
    return name, value
