"""YAML of strangers who need no more than maps and texts: no aliases, nothing deep, nothing large."""

from __future__ import annotations

import yaml

from .errors import Malformed

_DEEPEST = 8
_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def mapping(data: bytes, what: str, limit: int) -> dict[str, object]:
    """The map in `data`; `Malformed`, with the name `what`, for anything else."""
    if len(data) > limit:
        raise Malformed(f"{what} is larger than {limit} bytes")
    try:
        text, depth = data.decode(), 0
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            # Aliases could make much of little, and what is deep takes for ever.
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if isinstance(token, yaml.AliasToken) or depth > _DEEPEST:
                raise Malformed(f"{what} has an alias, or is too deep")
        rows = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise Malformed(f"{what} is not readable: {type(error).__name__}") from None
    if not isinstance(rows, dict):
        raise Malformed(f"{what} is no map")
    return {str(name): value for name, value in rows.items()}
