"""What GitHub's REST API takes of check runs, commit statuses and who wants a token, as JSON Schema.

https://docs.github.com/rest/checks/runs, https://docs.github.com/rest/commits/statuses and
https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema

COMPLETED = "completed"
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
_URL = {"type": "string", "pattern": "^https?://[^ ]+$"}
_FIELDS: Mapping[str, Any] = {
    "name": {"type": "string", "minLength": 1},
    "external_id": {"type": "string"},
    "details_url": _URL,
    "status": {"enum": ["queued", "in_progress", COMPLETED]},
    "conclusion": {
        "enum": ["success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required"]
    },
    "started_at": _TIME,
    "completed_at": _TIME,
    "output": {
        "type": "object",
        "required": ["title", "summary"],
        "additionalProperties": False,
        "properties": {
            "title": {"type": "string", "minLength": 1, "maxLength": 255},
            "summary": {"type": "string", "minLength": 1, "maxLength": 65_535},
            "text": {"type": "string", "maxLength": 65_535},
        },
    },
}
CHANGED_RUN: Mapping[str, Any] = {"type": "object", "additionalProperties": False, "properties": _FIELDS}
MADE_RUN: Mapping[str, Any] = {
    **CHANGED_RUN,
    "required": ["name", "head_sha"],
    "properties": {**_FIELDS, "head_sha": {"type": "string", "pattern": "^[0-9a-f]{40}$"}},
}
STATUS: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["state"],
    "properties": {
        "state": {"enum": ["error", "failure", "pending", "success"]},
        "target_url": _URL,
        "description": {"type": "string", "maxLength": 140},
        "context": {"type": "string", "minLength": 1},
    },
}
# GitHub's own takes less for more; ours asks for one repository and one permission.
TOKEN: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["repository_ids", "permissions"],
    "properties": {
        "repository_ids": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 1},
        "permissions": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {"enum": ["read", "write"]},
        },
    },
}


def problem(rows: object, schema: Mapping[str, Any]) -> str:
    """Why GitHub does not take these rows; empty if it does."""
    try:
        jsonschema.validate(rows, schema)
    except jsonschema.ValidationError as error:
        return f"Invalid request. {error.message[:500]}"
    assert isinstance(rows, dict)
    is_run = schema is MADE_RUN or schema is CHANGED_RUN
    if is_run and (rows.get("status") == COMPLETED) != ("conclusion" in rows):
        return "Invalid request. A conclusion belongs to what is completed"
    return ""
