"""A deploy request: JSON in, a checked `Deployment` out, or the gateway's error. Pure.

https://github.com/openfaas/faas/blob/master/api-docs/spec.openapi.yml (FunctionDeployment)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from sdk import naming, policy

from .errors import GatewayError

T = TypeVar("T")

HEALTH_DELAY = "com.openfaas.health.http.initialDelay"
ROLE = "role"
SYSTEM_ROLE = "openfaas-system"
SCALE_MIN = "com.openfaas.scale.min"
REPLICAS_LIMIT = 10
NAMESPACE = "openfaas-fn"

_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
    r"(?P<path>[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_NAME_LENGTH = 255
_MIB = 1024**2
_NUMBER = re.compile(r"[0-9]{1,4}")


class Resources(msgspec.Struct, frozen=True, omit_defaults=True):
    memory: str = ""
    cpu: str = ""


class Deployment(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """FunctionDeployment. The wire's null and absence are the same."""

    service: str = ""
    image: str = ""
    namespace: str = ""
    env_process: str = ""
    env_vars: Mapping[str, str] | None = None
    constraints: tuple[str, ...] | None = None
    secrets: tuple[str, ...] | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    limits: Resources | None = None
    requests: Resources | None = None
    read_only_root_filesystem: bool = False

    @property
    def is_system(self) -> bool:
        return (self.labels or {}).get(ROLE) == SYSTEM_ROLE

    @property
    def replicas(self) -> int:
        """`com.openfaas.scale.min`; there is no autoscaling here."""
        wanted = (self.labels or {}).get(SCALE_MIN, "1")
        return min(max(int(wanted), 1), REPLICAS_LIMIT) if _NUMBER.fullmatch(wanted) else 1

    @property
    def etag(self) -> str:
        """Names what was deployed (https://www.rfc-editor.org/rfc/rfc9110#name-etag)."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def health_path(self) -> str:
        return (self.annotations or {}).get(policy.HEALTH_PATH, "")

    def runs_like(self, other: Deployment) -> bool:
        """Whether both start the same containers: only labels or annotations differ.

        An image by tag may have moved, so only an image by digest is known to be the same.
        """
        bare = {"labels": None, "annotations": None}
        return "@sha256:" in self.image and (
            msgspec.structs.replace(self, **bare) == msgspec.structs.replace(other, **bare)
            and (self.is_system, self.replicas, self.health_path)
            == (other.is_system, other.replicas, other.health_path)
        )


def parse(body: bytes) -> Deployment:
    """Read and check a deploy request; `GatewayError` 400 with the gateway's words."""
    deployment = decode(body, Deployment)
    check_image(deployment.image)
    if not naming.SERVICE.fullmatch(deployment.service):
        raise GatewayError(400, f"service: ({deployment.service}) is invalid, must be a valid DNS entry")
    if deployment.service in naming.NEIGHBOURS:
        raise GatewayError(400, f"service: ({deployment.service}) is reserved")
    check_namespace(deployment.namespace)
    if deployment.health_path and not policy.is_path(deployment.health_path):
        raise GatewayError(
            400, f"{policy.HEALTH_PATH}: {deployment.health_path!r} is no path, such as /_/ready"
        )
    for what in (deployment.limits, deployment.requests):
        if what and what.memory and not 4 * _MIB <= (policy.memory_bytes(what.memory) or 0) <= _MIB**2:
            raise GatewayError(400, f"memory {what.memory!r} is no quantity from 4Mi to 1Ti, such as 128Mi")
        if what and what.cpu and policy.cpu_milli(what.cpu) is None:
            raise GatewayError(400, f"cpu {what.cpu!r} is no quantity, such as 500m")
    return deployment


def check_namespace(asked: str) -> None:
    """There is one, which need not be named."""
    if asked not in ("", NAMESPACE):
        raise GatewayError(400, f"namespace {asked} is not supported here")


def check_image(image: str) -> None:
    match = _REFERENCE.fullmatch(image)
    if not match:
        raise GatewayError(400, "invalid reference format")
    if len(match["path"]) > _NAME_LENGTH:
        raise GatewayError(400, f"repository name must not be more than {_NAME_LENGTH} characters")
    if match["path"] != match["path"].lower():
        raise GatewayError(
            400, f"invalid reference format: repository name ({match['path']}) must be lowercase"
        )


def decode(body: bytes, kind: type[T], *, status: int = 400) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        truncated = not body or "truncated" in str(error)
        raise GatewayError(status, "unexpected end of JSON input" if truncated else str(error)) from None
