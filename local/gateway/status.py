"""A function as `/system/function/NAME` and the list show it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .deployment import NAMESPACE
from .swarm import FAILED, LIVE, Generation, Task


def shown(wanted: Generation, tasks: Sequence[Task], invocations: int) -> Mapping[str, Any]:
    """FunctionStatus of the version that was deployed last; numbers that are 0 are left out, as recorded.

    Replicas are available once it has lived for a while. Of one that failed, `replicas` are those that were
    wanted of it: it is not scaled to 0.
    """
    rows: dict[str, Any] = msgspec.to_builtins(wanted.deployment)
    rows["name"] = rows.pop("service")
    has_failed = wanted.state == FAILED
    numbers = {
        "invocationCount": invocations,
        "replicas": wanted.deployment.replicas if has_failed else wanted.replicas,
        "availableReplicas": sum(task.running for task in tasks) if _is_available(wanted) else 0,
    }
    return {
        **rows,
        "namespace": NAMESPACE,
        "labels": rows.get("labels") or {},
        "annotations": rows.get("annotations") or {},
        **{name: number for name, number in numbers.items() if number},
        **({"failure": wanted.failure} if has_failed else {}),
        "createdAt": wanted.created_at,
        "etag": wanted.deployment.etag,
    }


def _is_available(generation: Generation) -> bool:
    return generation.is_ready and (generation.is_told or generation.state == LIVE)
