"""What is lost or wrong, given what the branches were at and what answers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .expected import Head

# What a function answers; None if it does not answer.
Answers = Mapping[str, str | None]

LOST, WRONG = "lost", "wrong"


@dataclass(frozen=True)
class Finding:
    """A function of a repository that is not as it should be."""

    kind: str
    function: str
    told: str


def judge(
    heads: Sequence[Head], before: Answers, live: Answers, taken: Collection[str] = ()
) -> Iterator[Finding]:
    """The findings of one repository.

    `heads`: from the one that was verified last to the current one; `before` answered at that time,
    `live` now. Functions in `taken` belong to somebody else for now: they are as good as broken.
    """
    head = heads[-1]
    for name in sorted({*head.functions, *live} - set(taken)):
        right, answer = allowed(name, heads, before, taken), live.get(name)
        if answer in right:
            continue
        is_lost = answer is None and head.functions.get(name) is not None
        yield Finding(
            LOST if is_lost else WRONG,
            name,
            f"it answers {shown(answer)}, right is {' or '.join(sorted(map(shown, right)))}",
        )


def allowed(
    name: str, heads: Sequence[Head], before: Answers, taken: Collection[str] = ()
) -> frozenset[str | None]:
    """What the function may answer.

    Where the head says nothing of it (its stack.yml can't be read, the function is broken, or it left a
    stack of which something is broken, so that nothing is collected), what answered before stays, or
    whatever of the heads since then came as far as to be deployed.
    """
    head = heads[-1]
    if head.is_valid and head.functions.get(name) is not None:
        return frozenset({head.functions[name]})
    if head.is_good and not set(taken) & set(head.functions):
        return frozenset({None})
    return frozenset({before.get(name), *_since(name, heads)})


def _since(name: str, heads: Iterable[Head]) -> Iterator[str | None]:
    for head in heads:
        if head.functions.get(name) is not None:
            yield head.functions[name]
        elif head.is_good:  # and names it not: it may have been collected
            yield None


def shown(answer: str | None) -> str:
    return "nothing" if answer is None else repr(answer)
