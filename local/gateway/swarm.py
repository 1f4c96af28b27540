"""Functions as Swarm services: one service for each generation of a function.

All that the gateway knows is in the labels of the services, so that a restart forgets nothing.
https://docs.docker.com/reference/api/engine/version/v1.45/#tag/Service
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import docker
import msgspec

from sdk import policy

from .deployment import Deployment
from .errors import GatewayError
from .settings import Settings

FUNCTION = "com.openfaas.function"
GENERATION = "com.openfaas.generation"
STATE = "com.openfaas.state"
FAILURE = "com.openfaas.failure"
SPEC = "com.openfaas.spec"

# What a generation is: being probed, serving, given up, or ending its calls before it is removed.
CANDIDATE, LIVE, FAILED, RETIRED = "candidate", "live", "failed", "retired"

_SECOND = 1_000_000_000
_CANCELED = "context canceled"
_BEFORE_START = frozenset({"new", "pending", "assigned", "accepted", "preparing", "ready", "starting"})
_ENDED = frozenset({"failed", "rejected", "complete", "shutdown", "remove", "orphaned"})


@dataclass(eq=False)
class Generation:
    """One version of a function and its service; compared by identity.

    `is_ready`: it answered its readiness path. `is_told`: the status says so. `in_flight` counts the calls
    that it works on. `forgiven`: tasks whose end says nothing of this version, by their ids. `settled` is
    set once the status says what has become of it: available, failed, or replaced.
    """

    service_id: str
    service: str
    function: str
    number: int
    deployment: Deployment
    state: str = CANDIDATE
    failure: str = ""
    created_at: str = ""
    replicas: int = 1
    is_ready: bool = False
    is_told: bool = False
    in_flight: int = 0
    forgiven: frozenset[str] = frozenset()
    settled: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)


@dataclass(frozen=True)
class Task:
    """A container of a generation, as Swarm reports it; `is_made`: there is one, so it has a log."""

    state: str
    error: str
    exit_code: int | None
    address: str
    desired: str
    id: str = ""
    is_made: bool = False

    @property
    def running(self) -> bool:
        return self.state == "running" and self.desired == "running"

    @property
    def died(self) -> bool:
        """Ended on its own: nobody asked it to, nor did the engine, which was stopped while it started it."""
        return self.state in ("failed", "rejected", "complete") and _CANCELED not in self.error


class _Missing(GatewayError):
    """The engine has no such thing (any more)."""


class Swarm:
    """docker-py behind asyncio: its calls block, so each runs in a thread.

    Raises only `GatewayError`: 400 and 500 for what the engine refuses, 503 while it does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._api = docker.APIClient(version="auto", timeout=60, max_pool_size=32)

    async def generations(self, function: str = "") -> list[Generation]:
        """Of one function, or of all."""
        label = f"{FUNCTION}={function}" if function else FUNCTION
        services = await self._call(self._api.services, filters={"label": label})
        return [_generation(service) for service in services]

    async def create(
        self, deployment: Deployment, number: int, secrets: Mapping[str, tuple[str, str]]
    ) -> Generation:
        """Start a new generation. `secrets` maps a name to the id and name of its Swarm secret."""
        labels = {
            FUNCTION: deployment.service,
            GENERATION: str(number),
            STATE: CANDIDATE,
            SPEC: msgspec.json.encode(deployment).decode(),
        }
        # Names of services are names in DNS: with the random end, nobody can take one over.
        name = f"{deployment.service[:54].rstrip('-')}-{uuid.uuid4().hex[:8]}"
        created = await self._call(
            self._api.create_service,
            task_template(deployment, secrets, self._settings),
            name=name,
            labels=labels,
            mode={"Replicated": {"Replicas": deployment.replicas}},
            endpoint_spec={"Mode": "dnsrr"},
        )
        return _generation(await self._call(self._api.inspect_service, created["ID"]))

    async def mark(self, generation: Generation, *, replicas: int | None = None) -> None:
        """Write the generation's state, failure and deployment into its labels; nothing restarts."""
        try:
            found = await self._call(self._api.inspect_service, generation.service_id)
        except _Missing:
            return
        spec = found["Spec"]
        labels = {
            **spec["Labels"],
            STATE: generation.state,
            FAILURE: generation.failure,
            SPEC: msgspec.json.encode(generation.deployment).decode(),
        }
        mode = spec["Mode"] if replicas is None else {"Replicated": {"Replicas": replicas}}
        await self._call(
            self._api.update_service,
            generation.service_id,
            found["Version"]["Index"],
            task_template=spec["TaskTemplate"],
            name=spec["Name"],
            labels=labels,
            mode=mode,
            endpoint_spec=spec["EndpointSpec"],
        )

    async def remove(self, generation: Generation) -> None:
        with suppress(_Missing):
            await self._call(self._api.remove_service, generation.service_id)

    async def tasks(self, service_id: str | None = None) -> Mapping[str, list[Task]]:
        """Tasks by the id of their service: of one service, or of all functions."""
        filters = {"service": service_id} if service_id else {"label": FUNCTION}
        found: dict[str, list[Task]] = {}
        with suppress(_Missing):
            for row in await self._call(self._api.tasks, filters=filters):
                task = _task(row, self._settings.functions_network)
                found.setdefault(row["ServiceID"], []).append(task)
        return found

    async def check_image(self, image: str) -> None:
        """Raise what the provider answers for an image that can't be pulled, whatever the registry said."""
        try:
            await self._call(self._api.inspect_image, image)
        except _Missing:
            try:
                await self._call(self._api.inspect_distribution, image)
            except GatewayError as error:
                if error.status == 503:
                    raise
                said = f"unable to pull image {image}: cannot pull: {error.text}"
                raise GatewayError(400, said) from None

    async def secrets(self, label: str) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = await self._call(self._api.secrets, filters={"label": label})
        return found

    async def create_secret(self, name: str, value: bytes, labels: Mapping[str, str]) -> None:
        await self._call(self._api.create_secret, name, value, labels=labels)

    async def remove_secret(self, secret_id: str) -> bool:
        """False if a service uses it."""
        try:
            await self._call(self._api.remove_secret, secret_id)
        except _Missing:
            pass
        except GatewayError as error:
            if "in use" in error.text:
                return False
            raise
        return True

    async def prune_images(self, label: str) -> None:
        """Remove images of ours that neither a container nor a service has.

        The engine's own prune forgets the names of what runs, too, if it runs by tag and digest; and to it
        ours are older than any pause, for they are dated 1980 (`SOURCE_DATE_EPOCH`).
        """
        containers = await self._call(self._api.containers, all=True)
        services = await self._call(self._api.services)
        used = {container["ImageID"] for container in containers}
        wanted = {_digest(service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]) for service in services}
        for image in await self._call(self._api.images, filters={"label": label}):
            names = {image["Id"], *map(_digest, image["RepoDigests"] or ())}
            if image["Id"] not in used and wanted.isdisjoint(names):
                with suppress(GatewayError):  # the others go nevertheless
                    await self._call(self._api.remove_image, image["Id"], force=True)

    async def _call(self, function: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return await asyncio.to_thread(function, *arguments, **named)
        except docker.errors.APIError as error:
            kind = _Missing if isinstance(error, docker.errors.NotFound) else GatewayError
            status = 400 if error.status_code == 400 else 500
            raise kind(status, f"the engine refused: {error.explanation or error}") from None
        except (docker.errors.DockerException, OSError) as error:
            raise GatewayError(503, f"the engine does not answer: {type(error).__name__}") from None


def task_template(
    deployment: Deployment, secrets: Mapping[str, tuple[str, str]], settings: Settings
) -> dict[str, Any]:
    """The container of a function: no capabilities, no new privileges, bounded in all it may use."""
    environment = dict(deployment.env_vars or {})
    if deployment.env_process:
        environment["fprocess"] = deployment.env_process
    limits = deployment.limits
    memory = policy.memory_bytes((limits and limits.memory) or settings.memory_limit)
    cpu = policy.cpu_milli(limits.cpu) if limits and limits.cpu else None
    # The pipeline's own functions unpack repositories: they get a disk, all others bounded memory.
    scratch: dict[str, Any] = {"Type": "volume", "Target": "/tmp"}
    if not deployment.is_system:
        options = {"SizeBytes": 64 * 1024**2, "Mode": 0o1777}
        scratch = {"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": options}
    networks = [settings.functions_network]
    if deployment.is_system:
        networks.append(settings.system_network)
    return {
        "ContainerSpec": {
            "Image": deployment.image,
            "Labels": {FUNCTION: deployment.service},
            "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
            "Secrets": [
                _secret_reference(name, *secrets[name]) for name in dict.fromkeys(deployment.secrets or ())
            ],
            "Mounts": [scratch],
            "ReadOnly": deployment.read_only_root_filesystem,
            "CapabilityDrop": ["ALL"],
            "Privileges": {"NoNewPrivileges": True},
            "Init": True,
            "Healthcheck": {"Test": ["NONE"]},
            "StopGracePeriod": 10 * _SECOND,
        },
        "Resources": {
            "Limits": {
                "MemoryBytes": memory,
                "Pids": settings.pids_limit,
                **({"NanoCPUs": cpu * 1_000_000} if cpu else {}),
            }
        },
        "RestartPolicy": {"Condition": "any", "Delay": _SECOND},
        "Networks": [{"Target": network} for network in networks],
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "10m", "max-file": "2"}},
    }


def _secret_reference(name: str, secret_id: str, secret_name: str) -> dict[str, Any]:
    target = {"Name": f"/var/openfaas/secrets/{name}", "UID": "0", "GID": "0", "Mode": 0o444}
    return {"SecretID": secret_id, "SecretName": secret_name, "File": target}


def _generation(service: Mapping[str, Any]) -> Generation:
    labels = service["Spec"]["Labels"]
    return Generation(
        service_id=service["ID"],
        service=service["Spec"]["Name"],
        function=labels[FUNCTION],
        number=int(labels[GENERATION]),
        deployment=msgspec.json.decode(labels[SPEC], type=Deployment),
        state=labels[STATE],
        failure=labels.get(FAILURE, ""),
        created_at=service["CreatedAt"],
        replicas=service["Spec"]["Mode"]["Replicated"].get("Replicas", 1),
    )


def _task(row: Mapping[str, Any], network: str) -> Task:
    status = row["Status"]
    container = status.get("ContainerStatus") or {}
    code = container.get("ExitCode")
    addresses = [
        address.split("/")[0]
        for attachment in row.get("NetworksAttachments") or ()
        if attachment["Network"]["Spec"]["Name"] == network
        for address in attachment.get("Addresses") or ()
    ]
    return Task(
        state=status["State"],
        error=status.get("Err", ""),
        exit_code=code if status["State"] in _ENDED else None,
        address=addresses[0] if addresses else "",
        desired=row["DesiredState"],
        id=row["ID"],
        is_made=bool(container.get("ContainerID")) and status["State"] not in _BEFORE_START,
    )


def _digest(image: str) -> str:
    return image.rpartition("@")[2]
