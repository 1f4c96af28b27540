"""OpenFaaS's API description, and what it says of a request or an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from jsonschema import Draft7Validator


@cache
def described(shared: Path) -> Description:
    return Description((shared / "openfaas" / "spec.openapi.yml").read_text())


class Description:
    def __init__(self, text: str) -> None:
        loaded = json.loads(
            json.dumps(yaml.safe_load(text)).replace("#/components/schemas/", "#/definitions/")
        )
        self._paths: Mapping[str, Any] = loaded["paths"]
        self._schemas: Mapping[str, Any] = loaded["components"]["schemas"]

    def operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        """The description of a call; what follows a function's name is the function's."""
        path = re.sub(r"^(/(?:async-)?function/[^/]+)/.*", r"\1", urlsplit(path).path)
        for template, operations in self._paths.items():
            pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, path) and method.lower() in operations:
                found: Mapping[str, Any] = operations[method.lower()]
                return found
        return None

    def check_request(self, method: str, target: str, body: bytes) -> None:
        """`AssertionError` or `ValidationError` for what the description does not have."""
        operation = self.operation(method, target)
        assert operation, f"{method} {target} is not described"
        named = {parameter["name"] for parameter in operation.get("parameters", ())}
        query = {name for name, _ in parse_qsl(urlsplit(target).query, keep_blank_values=True)}
        # Of lists the description has no namespace, which every provider takes.
        assert query <= named | {"namespace"}, f"{method} {target}"
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            self._validate(content["application/json"]["schema"], json.loads(body), is_strict=True)
        elif not content:
            assert not body, f"{method} {target} has no body"

    def check_answer(self, method: str, target: str, status: int, body: bytes) -> None:
        """Whether an answer's JSON has the described shape; other answers are not described."""
        operation = self.operation(method, target) or {}
        content = operation.get("responses", {}).get(str(status), {}).get("content", {})
        schema = next((kind["schema"] for kind in content.values()), None)
        if schema:
            # It says that a list of secrets is one secret.
            is_wrong = urlsplit(target).path == "/system/secrets"
            self._validate({"type": "array", "items": schema} if is_wrong else schema, json.loads(body))

    def _validate(self, schema: Mapping[str, Any], value: Any, *, is_strict: bool = False) -> None:
        reference = schema.get("$ref", "").removeprefix("#/definitions/")
        whole = dict(self._schemas[reference] if reference else schema)
        if is_strict and "allOf" not in whole:
            whole["additionalProperties"] = False
        if is_strict and "namespace" not in whole.get("properties", {}) and "properties" in whole:
            # Of a removal, too, which every provider takes.
            whole["properties"] = {**whole["properties"], "namespace": {"type": "string"}}
        Draft7Validator({**whole, "definitions": self._schemas}).validate(value)
