"""Which masks change between two contexts; and what no context needs any more."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from core.errors import ReferenceUnavailable
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, Rule

__all__ = ["Change", "changes", "keep_only", "superfluous"]


@dataclass(frozen=True)
class Change:
    """A rule that chooses another mask, or is new, or has gone.

    Attributes
    ----------
    rule : `~infra.mirror.contexts.Rule`
        What is matched, and from what date; its mask is that of one of the contexts.
    before, after : str
        The masks; empty where there is no such rule.
    """

    rule: Rule
    before: str
    after: str


def changes(a: Context, b: Context) -> Iterator[Change]:
    """Compare two contexts rule by rule.

    Parameters
    ----------
    a, b : `~infra.mirror.contexts.Context`
        The earlier and the later one.
    """
    before, after = _by_match(a), _by_match(b)
    for match in sorted(before.keys() | after.keys()):
        old, new = before.get(match), after.get(match)
        if (old and old.mask) != (new and new.mask):
            rule = new or old
            assert rule is not None
            yield Change(rule, old.mask if old else "", new.mask if new else "")


def _by_match(context: Context) -> dict[tuple[str, tuple[tuple[str, str], ...], str], Rule]:
    return {(rule.instrument, rule.parameters, rule.after): rule for rule in context.rules}


def superfluous(mirror: Mirror, contexts: list[Context]) -> list[str]:
    """Return the keys of the files that none of the contexts needs."""
    needed = {key for context in contexts for key in context.keys.values()}
    names = {name for context in contexts for name in context.keys}
    return [
        key
        for key in mirror.list_keys()
        if key not in needed and key.rpartition("/")[2] not in names
    ]


def keep_only(mirror: Mirror, contexts: list[Context], keys: list[str]) -> None:
    """Delete what no context needs; readers are told first that it is gone.

    Parameters
    ----------
    mirror : `~infra.mirror.bucket.Mirror`
        The mirror.
    contexts : list of `~infra.mirror.contexts.Context`
        What is kept.
    keys : list of str
        What is deleted, as `superfluous` returns it.

    Raises
    ------
    ReferenceUnavailable
        If the operational context is not among those that are kept.
    """
    config = mirror.operational()
    operational = config.operational_context
    if operational not in {context.name for context in contexts}:
        raise ReferenceUnavailable(f"{operational}: is operational, expected it to be kept")
    names = {name for context in contexts for name in context.keys}
    files = {name: digest for name, digest in config.catalogue.items() if name in names}
    mirror.write_config(replace(config, catalogue=files))
    for key in keys:
        mirror.delete(key)
