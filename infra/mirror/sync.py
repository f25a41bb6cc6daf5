"""Copying a context into the mirror: only what is missing or wrong, and the configuration last."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from core import EQUALS_JWST
from core.errors import ReferenceUnavailable
from handler.crds.mirror import FileDigest, MirrorConfig
from handler.crds.rules import BUILD, LATEST
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, read_context
from infra.mirror.sources import Source, SourceRules

__all__ = ["Item", "Plan", "copy", "make_plan", "publish", "use"]


@dataclass(frozen=True)
class Item:
    """One file of a context.

    Attributes
    ----------
    name, instrument, key : str
        Its file name, its instrument (empty for rule files), its key in the mirror.
    digest : `~handler.crds.mirror.FileDigest`
        What it should be.
    state : str
        ``there``, ``missing`` or ``wrong``.
    """

    name: str
    instrument: str
    key: str
    digest: FileDigest
    state: str


@dataclass(frozen=True)
class Plan:
    """What a sync has to do.

    Attributes
    ----------
    context : `~infra.mirror.contexts.Context`
        What is copied.
    items : tuple of `Item`
        All its files; rule files first.
    instruments : frozenset of str or None
        Instruments to restrict the mirror to, in upper case; empty for all, None to keep them.
    restricted_to : frozenset of str
        Instruments that the context was followed for; empty for all.
    build : str
        The build context to record; empty for none.
    prunes : int
        Number of prunes of the mirror before this plan.
    """

    context: Context
    items: tuple[Item, ...]
    instruments: frozenset[str] | None
    restricted_to: frozenset[str]
    build: str
    prunes: int

    @property
    def to_copy(self) -> tuple[Item, ...]:
        """The files that are missing or wrong."""
        return tuple(item for item in self.items if item.state != "there")


def make_plan(
    source: Source, mirror: Mirror, context: str, instruments: frozenset[str] | None = None
) -> Plan:
    """Find out what a context needs and what of it is there.

    Parameters
    ----------
    source : `~infra.mirror.sources.Source`
        Where files come from.
    mirror : `~infra.mirror.bucket.Mirror`
        Where they go.
    context : str
        A context's name; ``latest`` for what the source calls operational, ``build`` for the
        build context of the `jwst` version whose products ours equal.
    instruments : frozenset of str or None
        What the mirror is restricted to, in upper case; empty for all instruments, None for what
        it is restricted to already.

    Raises
    ------
    ReferenceUnavailable
        If the source lacks a file, has a wrong one, or the mirror is being pruned.
    """
    named = {LATEST: lambda: source.config.operational_context, BUILD: source.build}
    name = named[context]() if context in named else context
    before = mirror.config()
    if before and before.prunes % 2:
        raise ReferenceUnavailable(
            f"{mirror.location}: a prune is deleting files or was interrupted; if it does not run "
            "any more, run mirror prune again, then the sync"
        )
    followed = instruments
    if followed is None:
        followed = before.instruments if before else frozenset()
    wanted = read_context(name, SourceRules(source), followed)
    items = tuple(_items(wanted, source, mirror))
    build = name if context == BUILD else ""
    return Plan(wanted, items, instruments, followed, build, before.prunes if before else 0)


def copy(plan: Plan, source: Source, mirror: Mirror) -> Iterator[Item]:
    """Copy what is missing or wrong; yield each file when it is there.

    Raises
    ------
    ReferenceUnavailable
        If a file of the source is not what it should be.
    """
    for item in plan.to_copy:
        mirror.put(source.file(item.name, item.instrument), item.key, item.digest)
        yield item


def publish(plan: Plan, source: Source, mirror: Mirror) -> str:
    """Write the configuration, so that readers see the context; return which is operational.

    The operational context of the source becomes the mirror's if the mirror holds it, unless
    `use` chose another.

    Raises
    ------
    ReferenceUnavailable
        If the mirror was pruned or restricted otherwise since the plan was made.
    """

    def published(before: MirrorConfig | None) -> MirrorConfig:
        config = before or MirrorConfig(plan.context.name, frozenset(), {})
        _check_still_valid(plan, config, mirror)
        files = {**config.catalogue, **{item.name: item.digest for item in plan.items}}
        of_source = source.config.operational_context
        candidates = [of_source, config.operational_context, plan.context.name]
        if config.held_by_hand:
            candidates.insert(0, config.operational_context)
        operational = next(name for name in candidates if name in files)
        # Only a source that is newer than all before it can know that a file is no longer bad.
        newer = _age(of_source) > _age(config.bad_files_of)
        return replace(
            config,
            operational_context=operational,
            previous_context=_previous(before, operational),
            source_context=of_source,
            catalogue=files,
            bad_files=source.config.bad_files | (frozenset() if newer else config.bad_files),
            bad_files_of=of_source if newer else config.bad_files_of,
            instruments=config.instruments if plan.instruments is None else plan.instruments,
            builds={**config.builds, **({EQUALS_JWST: plan.build} if plan.build else {})},
        )

    return mirror.update(published, source.config.other).operational_context


def _check_still_valid(plan: Plan, config: MirrorConfig, mirror: Mirror) -> None:
    """Reject a plan whose files a prune may have deleted, or whose instruments are too few."""
    if config.prunes != plan.prunes:
        raise ReferenceUnavailable(f"{mirror.location}: was pruned meanwhile; run the sync again")
    wanted = config.instruments if plan.instruments is None else plan.instruments
    if plan.restricted_to and (not wanted or wanted - plan.restricted_to):
        raise ReferenceUnavailable(
            f"{mirror.location}: was extended to other instruments meanwhile; run the sync again"
        )


def use(context: str, mirror: Mirror) -> tuple[MirrorConfig, MirrorConfig]:
    """Make a context that the mirror holds its operational one, until another is named.

    Parameters
    ----------
    context : str
        Its name; ``latest`` for the operational context of the source of the last sync.
    mirror : `~infra.mirror.bucket.Mirror`
        The mirror.

    Returns
    -------
    tuple of `~handler.crds.mirror.MirrorConfig`
        The configuration before and after.

    Raises
    ------
    ReferenceUnavailable
        If the mirror lacks a file that the context needs; nothing is changed then.
    """
    seen: list[MirrorConfig] = []

    def used(before: MirrorConfig | None) -> MirrorConfig:
        config = before or mirror.operational()
        name = context
        if context == LATEST:
            name = config.source_context or config.operational_context
        keys = read_context(name, mirror, config.instruments).keys.keys()
        missing = sorted(keys - config.catalogue.keys() - config.bad_files)
        if missing:
            raise ReferenceUnavailable(
                f"{mirror.location}: lacks {len(missing)} files of {name}, {missing[0]} for one; "
                "sync it first"
            )
        seen.append(config)
        return replace(
            config,
            operational_context=name,
            previous_context=_previous(config, name),
            held_by_hand=context != LATEST,
        )

    after = mirror.update(used)
    return seen[-1], after


def _previous(before: MirrorConfig | None, operational: str) -> str:
    if before is None:
        return ""
    if before.operational_context != operational:
        return before.operational_context
    return before.previous_context


def _age(context: str) -> tuple[int, str]:
    """Return what orders contexts by age: jwst_10000.pmap is newer than jwst_9999.pmap."""
    return len(context), context


def _items(context: Context, source: Source, mirror: Mirror) -> Iterator[Item]:
    bad, lacking = source.config.bad_files, []
    for name, key in context.keys.items():
        if name in bad and name in context.masks:
            continue  # the function refuses it by its name
        if name in bad:
            raise ReferenceUnavailable(f"{name}: {context.name} needs it, and it is listed as bad")
        instrument = context.masks.get(name, "")
        try:
            digest = source.digest(name, instrument)
        except ReferenceUnavailable as exc:  # told below, all at once
            lacking.append(str(exc))
            continue
        yield Item(name, instrument, key, digest, mirror.state(key, digest))
    if lacking:
        raise ReferenceUnavailable(
            f"{len(lacking)} files that {context.name} needs cannot be had: {'; '.join(lacking)}"
        )
