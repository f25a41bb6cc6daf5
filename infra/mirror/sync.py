"""Copying a context into the mirror: only what is missing or wrong, and the configuration last."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from core import EQUALS_JWST
from core.errors import ReferenceUnavailable
from handler.references.rules import BUILD, LATEST
from handler.references.server import FileDigest, ServerConfig
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, read_context
from infra.mirror.sources import Source, SourceRules

__all__ = ["Item", "Plan", "copy", "make_plan", "previous_context", "publish", "use"]

_NAMED, _OF_SOURCE = "named_context", "context_of_source"
"""What a mirror's configuration says besides: named by `use`, and operational at the source."""
_PREVIOUS = "previous_context"


@dataclass(frozen=True)
class Item:
    """One file of a context.

    Attributes
    ----------
    name, instrument, key : str
        Its file name, its instrument (empty for rule files), its key in the mirror.
    digest : `~handler.references.server.FileDigest`
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
    instruments : frozenset of str
        What the mirror is restricted to, in upper case; empty for all instruments.
    builds : mapping of str to str
        The build contexts that the mirror records, by version of `jwst`.
    """

    context: Context
    items: tuple[Item, ...]
    instruments: frozenset[str] = frozenset()
    builds: Mapping[str, str] = field(default_factory=dict)

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
        If the source lacks a file, or has a wrong one.
    """
    named = {LATEST: lambda: source.config.operational_context, BUILD: source.build}
    name = named[context]() if context in named else context
    before = mirror.config()
    if instruments is None:
        instruments = before.instruments if before else frozenset()
    wanted = read_context(name, SourceRules(source), instruments)
    builds = dict(before.builds) if before else {}
    builds |= {EQUALS_JWST: name} if context == BUILD else {}
    return Plan(wanted, tuple(_items(wanted, source, mirror)), instruments, builds)


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

    What the source calls operational becomes so if the mirror holds it, now or from before; what
    `use` has named stays so.
    """
    before = mirror.config()
    files = dict(before.catalogue) if before else {}
    files |= {item.name: item.digest for item in plan.items}
    named = str(before.other.get(_NAMED, "")) if before else ""
    candidates = [named, source.config.operational_context]
    candidates += [before.operational_context] if before else []
    operational = next((name for name in candidates if name in files), plan.context.name)
    other = {
        **source.config.other,
        _NAMED: named,
        _OF_SOURCE: source.config.operational_context,
        _PREVIOUS: _previous(before, operational),
    }
    config = replace(source.config, operational_context=operational, catalogue=files, other=other)
    mirror.write_config(config.mirroring(plan.instruments, plan.builds))
    return operational


def use(context: str, mirror: Mirror) -> str:
    """Make a context that the mirror holds its operational one, until another is named.

    Parameters
    ----------
    context : str
        Its name; ``latest`` for what the source called operational at the last sync.
    mirror : `~infra.mirror.bucket.Mirror`
        The mirror.

    Returns
    -------
    str
        What is operational now.

    Raises
    ------
    ReferenceUnavailable
        If the mirror lacks a file that the context needs; it stays as it was then.
    """
    config = mirror.operational()
    named = "" if context == LATEST else context
    name = named or str(config.other.get(_OF_SOURCE) or config.operational_context)
    wanted = mirror.context(name)
    missing = sorted(wanted.keys.keys() - config.catalogue.keys() - config.bad_files)
    if missing:
        raise ReferenceUnavailable(
            f"{mirror.location}: lacks {len(missing)} files of {name}, {missing[0]} for one; "
            "sync it first"
        )
    other = {**config.other, _NAMED: named, _PREVIOUS: _previous(config, name)}
    mirror.write_config(replace(config, operational_context=name, other=other))
    return name


def previous_context(mirror: Mirror) -> str:
    """Return what was operational before; empty if nothing was."""
    return str(mirror.operational().other.get(_PREVIOUS, ""))


def _previous(before: ServerConfig | None, operational: str) -> str:
    if before is None:
        return ""
    if before.operational_context != operational:
        return before.operational_context
    return str(before.other.get(_PREVIOUS, ""))


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
