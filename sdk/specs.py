"""A deployment inside an annotation of itself: what a rollback goes back to, and what the registry keeps."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from . import naming

Spec = dict[str, Any]

SPEC = naming.CLOUD + "spec"
LAST_READY = naming.CLOUD + "last-ready"


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def pack(spec: Spec) -> str:
    return base64.b64encode(zlib.compress(canonical(spec), 9)).decode()


def unpack(text: str) -> Spec | None:
    """The deployment, None for what is none."""
    try:
        return dict(json.loads(zlib.decompress(base64.b64decode(text))))
    except (ValueError, TypeError, RecursionError, zlib.error):
        return None
