"""What is deployed for a shipment. Pure.

A deployment is the JSON that the gateway takes:
https://github.com/openfaas/faas/blob/master/api-docs/spec.openapi.yml (FunctionDeployment).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from .sdk import naming, policy, secrets_file
from .sdk.gateway import Status
from .sdk.messages import Shipment
from .sdk.settings import Settings
from .sdk.specs import LAST_READY, SPEC, Spec, canonical, pack, unpack

PREFIX = naming.CLOUD
DIGEST = PREFIX + "digest"
CONFIG = PREFIX + "config"
NONCE = PREFIX + "nonce"
# Of what its sealed secrets are in the repository: with another value it is another version.
SEALED = PREFIX + "sealed"

# What may differ between two deployments of one and the same version: where it came from, not what it is.
_VOLATILE = frozenset(PREFIX + name for name in ("git-sha", "git-deploytime", "git-clone-url", "template"))


def wanted(shipment: Shipment, settings: Settings, *, now: int) -> Spec:
    """The deployment of a shipment; its image and nonce are yet to come."""
    function, repository = shipment.function, shipment.repository
    owner = repository.owner
    memory = function.limits.memory or f"{settings.function_memory_limit_mb}Mi"
    most = policy.cpu_milli(function.limits.cpu) or settings.function_cpu_limit_milli
    spec: Spec = {
        "service": naming.service_name(owner.login, function.name),
        "envProcess": function.fprocess,
        "envVars": dict(function.environment),
        "secrets": [naming.user_secret(shipment.scm, owner.id, name) for name in function.secrets],
        "labels": {**function.labels, **_labels(shipment, settings, now)},
        "annotations": {**function.annotations, **_annotations(shipment)},
        "limits": {
            "memory": memory,
            "cpu": function.limits.cpu or f"{settings.function_cpu_limit_milli}m",
        },
        "requests": {
            "memory": function.requests.memory or memory,
            "cpu": function.requests.cpu or f"{min(settings.function_cpu_requests_milli, most)}m",
        },
        "readOnlyRootFilesystem": settings.readonly_root_filesystem or function.readonly_root_filesystem,
    }
    spec["annotations"][CONFIG] = _config_digest(spec)
    return spec


def complete(spec: Spec, image: str, nonce: str, last_ready: Spec | None) -> Spec:
    """`spec` as it is sent: with its image, this attempt's nonce, and itself for a later rollback."""
    whole = {**spec, "image": image, "annotations": {**spec["annotations"], NONCE: nonce}}
    for name, kept in ((SPEC, {**spec, "image": image}), (LAST_READY, last_ready)):
        packed = pack(kept) if kept else ""
        if packed and len(packed) <= naming.ANNOTATION_BYTES:
            whole["annotations"][name] = packed
    return whole


def is_unchanged(current: Status | None, spec: Spec) -> bool:
    """Whether the same context with the same configuration is deployed, and ready."""
    if current is None or current.failure or not current.available_replicas:
        return False
    return is_version(current, spec)


def sleeps_unchanged(current: Status | None, spec: Spec) -> bool:
    """Whether that version is scaled to zero: a look that nobody pushed for must not wake it.

    faasd shows a container that is gone alike, so a push deploys it anew.
    """
    asleep = current is not None and not (current.replicas or current.failure)
    return bool(current and asleep and is_version(current, spec))


def is_version(status: Status, spec: Spec) -> bool:
    """Whether the same context with the same configuration is deployed."""
    there = status.annotations or {}
    return all(there.get(name) == spec["annotations"][name] for name in (DIGEST, CONFIG))


def is_twin(status: Status, spec: Spec) -> bool:
    """Whether what is deployed differs from `spec` in its nonce at most, and in where it came from."""
    return is_version(status, spec) and status.image == spec["image"]


def has_sealed(status: Status | None, spec: Spec) -> bool:
    """Whether it was deployed with the same sealed secrets."""
    there = (status.annotations or {}) if status else {}
    return bool(there.get(SEALED) == spec["annotations"].get(SEALED))


def is_starting(status: Status) -> bool:
    """Whether replicas are wanted and none is ready, nor known to fail."""
    return bool(status.replicas and not status.available_replicas and not status.failure)


def nonce_of(status: Status | None) -> str:
    return (status.annotations or {}).get(NONCE, "") if status else ""


def is_same(one: Status | None, other: Status | None) -> bool:
    """Whether both are the same deployment of a function, or both none."""
    return (one is None) == (other is None) and nonce_of(one) == nonce_of(other)


def last_ready(current: Status | None, spec: Spec) -> Spec | None:
    """The deployment to go back to from `spec`: the current one if it works, else the one that it replaced.

    One that is scaled to zero works. faasd shows one that dies in the same way: if it is what is to be
    deployed again, then an earlier attempt did not get it ready, and going back to it would be none.
    """
    if current is None:
        return None
    kept = current.annotations or {}
    again = not current.available_replicas and is_version(current, spec)
    name = LAST_READY if current.failure or is_starting(current) or again else SPEC
    return unpack(kept[name]) if name in kept else None


def _labels(shipment: Shipment, settings: Settings, now: int) -> Mapping[str, str]:
    repository = shipment.repository
    service = naming.service_name(repository.owner.login, shipment.function.name)
    git = {
        "git-cloud": "1",
        "git-scm": shipment.scm,
        "git-owner": naming.label_value(repository.owner.login),
        "git-owner-id": str(repository.owner.id),
        "git-repo": naming.label_value(repository.name),
        "git-repo-id": str(repository.id),
        "git-branch": naming.label_value(shipment.branch),
        "git-sha": shipment.sha,
        "git-private": "1" if repository.private else "0",
        "git-deploytime": str(now),
    }
    return {
        "faas_function": service,
        "app": service,
        "com.openfaas.scale.min": str(settings.scaling_min_limit),
        "com.openfaas.scale.max": str(settings.scaling_max_limit),
        "com.openfaas.scale.factor": str(settings.scaling_factor),
        "com.openfaas.scale.zero": "true",
        **{PREFIX + name: value for name, value in git.items()},
    }


def _annotations(shipment: Shipment) -> Mapping[str, str]:
    template = shipment.template
    return {
        f"{PREFIX}git-repo-url": shipment.repository.html_url,
        f"{PREFIX}git-clone-url": shipment.repository.clone_url,
        f"{PREFIX}git-ref": shipment.ref,
        f"{PREFIX}template": f"{template.source}@{template.commit}" if template.commit else template.source,
        DIGEST: shipment.digest,
        **({SEALED: secrets_file.digest(shipment.sealed)} if shipment.sealed else {}),
    }


def _config_digest(spec: Spec) -> str:
    lasting = {
        part: {key: text for key, text in spec[part].items() if key not in _VOLATILE}
        for part in ("labels", "annotations")
    }
    return hashlib.sha256(canonical({**spec, **lasting})).hexdigest()
