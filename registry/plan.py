"""What may be deleted from one repository. Pure.

A repository is one function's. Its tags:

    <commit>, latest, …        images
    ctx-<digest>               the same images, by what they were built of
    log-<tag>, log-ctx-<…>     the log of the build of that tag
    cache                      BuildKit's cache

A digest is what is deleted, with all its tags: so it stays if any of them should.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

CACHE = "cache"
LOG = "log-"


@dataclass(frozen=True)
class Found:
    """One manifest. `created` is its own word, `pushed` the storage's: seconds, None if unknown.

    `children` are the manifests of an index, `blobs` the sizes of all that belongs to it alone.
    """

    digest: str
    created: float | None = None
    pushed: float | None = None
    tags: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    blobs: Mapping[str, int] = field(default_factory=dict)

    @property
    def date(self) -> float | None:
        return self.pushed if self.created is None else self.created

    @property
    def size(self) -> int:
        return sum(self.blobs.values())

    @property
    def logs_of(self) -> Set[str]:
        """The tags whose builds this is the log of."""
        return {tag.removeprefix(LOG) for tag in self.tags if tag.startswith(LOG)}

    @property
    def is_image(self) -> bool:
        return any(tag != CACHE and not tag.startswith(LOG) for tag in self.tags)

    def is_younger(self, since: float) -> bool:
        """Whether it was made or pushed since then, as far as is known. An old image is pushed again
        when it is about to be deployed again."""
        known = [at for at in (self.created, self.pushed) if at is not None]
        return not known or max(known) > since


def plan(found: Sequence[Found], *, running: Collection[str], keep: int, since: float) -> tuple[Found, ...]:
    """What may go, the oldest first: all but

    - the digests that are `running`,
    - the newest `keep` images,
    - the logs of images that stay, and the newest `keep` logs,
    - the cache, while any image stays,
    - what is younger than `since`, or of unknown age,
    - the children of all these.
    """
    children = {one.digest: one.children for one in found}
    kept = {one.digest for one in found if one.digest in running or one.is_younger(since)}
    kept |= _newest((one for one in found if one.is_image), keep)
    kept |= _newest((one for one in found if one.logs_of), keep)
    more = True
    while more:
        kept = _with_children(kept, children)
        tags = {tag for one in found if one.digest in kept and one.is_image for tag in one.tags}
        bound = {one.digest for one in found if one.logs_of & tags or (tags and CACHE in one.tags)}
        more = not bound <= kept
        kept |= bound
    going = [one for one in found if one.digest not in kept]
    # Equally old: an index before its children, so that no index ever lacks one.
    return tuple(sorted(going, key=lambda one: (one.date or 0, not one.children, one.digest)))


def _newest(found: Iterable[Found], keep: int) -> set[str]:
    # What is of unknown age stays anyhow, and takes no place of the others.
    dated = sorted((one.date, one.digest) for one in found if one.date is not None)
    return {digest for _, digest in dated[max(len(dated) - keep, 0) :]}


def _with_children(kept: Iterable[str], children: Mapping[str, Collection[str]]) -> set[str]:
    everything, pending = set[str](), list(kept)
    while pending:
        digest = pending.pop()
        if digest not in everything:
            everything.add(digest)
            pending += children.get(digest, ())
    return everything
