"""Names: of services, images, secrets and label values, and what each system allows."""

from __future__ import annotations

import re

from .errors import Refused

# What the labels and annotations begin with that only the cloud sets.
CLOUD = "com.openfaas.cloud."
SERVICE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,198}[a-z0-9])?")
SCM_PREFIX = {"github": "gh", "gitlab": "gl", "local": "local"}

# The most that Kubernetes takes as a label's value.
LABEL_LENGTH = 63
# faasd keeps annotations as containerd labels: its own prefix, name and value together at most 4,096 bytes.
ANNOTATION_BYTES = 4_000

# What stands beside our functions in a cluster; nobody's function may take such a name.
NEIGHBOURS = frozenset(
    "of-builder of-buildkit registry gateway queue-worker basic-auth-plugin nats prometheus".split()
)
PIPELINE = frozenset(
    "gh-push git-tar buildshiprun garbage-collect reconcile github-status list-functions".split()
)
RESERVED = NEIGHBOURS | PIPELINE


def service_name(owner: str, function: str) -> str:
    """`lower(owner)-function`, as the cluster knows it; `Refused` if no cluster would take it.

    Kubernetes, Swarm and DNS labels allow 63 of `[a-z0-9-]`.
    """
    if not SERVICE.fullmatch(function):
        raise Refused(
            f"function name {function!r} is not allowed: use lower case letters, digits and dashes, "
            "starting and ending with a letter or digit"
        )
    name = f"{owner.lower()}-{function}"
    if not SERVICE.fullmatch(name):
        raise Refused(f"{name!r} is not a name that a cluster takes: {_why(name)}")
    if name in RESERVED:
        raise Refused(f"{name!r} is the name of a part of the platform: rename the function")
    return name


def _why(name: str) -> str:
    if len(name) > 63:
        return f"it has {len(name)} characters, 63 are allowed; shorten the function's name"
    return "it must be lower case letters, digits and dashes"


def owner_path(scm: str, owner_id: int | str) -> str:
    """`<scm>/<owner id>`: whose something is, whatever the owner is called by now."""
    return f"{scm}/{owner_id}"


def repository_path(scm: str, owner_id: int | str, repo_id: int | str) -> str:
    return f"{owner_path(scm, owner_id)}/{repo_id}"


def image_repository(registry: str, scm: str, owner_id: int, repo_id: int, function: str) -> str:
    """`<registry>/<scm>/<owner id>/<repo id>/<function>`: ids, so that no two owners ever share it."""
    return image_path(registry, repository_path(scm, owner_id, repo_id), function)


def image_path(registry: str, repository: str, function: str) -> str:
    """The same for a `repository_path`."""
    return f"{images_of(registry, repository)}/{function}"


def images_of(registry: str, repository: str) -> str:
    """What the images of a repository's functions are below; `repository` is its `repository_path`."""
    return f"{registry.rstrip('/')}/{repository}"


def qualified(name: str, namespace: str) -> str:
    """`name.namespace`, as OpenFaaS writes it in URLs; `name` alone in the gateway's default one."""
    return f"{name}.{namespace}" if namespace else name


def is_secret(name: str) -> bool:
    """Whether an author's secret may be called so."""
    return bool(_SECRET.fullmatch(name))


def user_secret(scm: str, owner_id: int, name: str) -> str:
    """The cluster's name of an author's secret: nobody can name another owner's."""
    return f"{SCM_PREFIX.get(scm, scm)}-{owner_id}-{name}"


def label_value(text: str) -> str:
    """`text` as a Kubernetes label value: at most 63 of `[A-Za-z0-9._-]`, alphanumeric at the ends.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", text)[:LABEL_LENGTH]
    return safe.strip("._-")
