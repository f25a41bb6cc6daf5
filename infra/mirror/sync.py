"""Copying a context into the mirror: only what is missing or wrong, and the configuration last."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import ReferenceUnavailable
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, key_of, read_context
from infra.mirror.sources import Facts, Source, catalogue, operational_context

__all__ = ["Item", "Plan", "copy", "make_plan", "publish"]


@dataclass(frozen=True)
class Item:
    """One file of a context.

    Attributes
    ----------
    name, instrument, key : str
        Its file name, its instrument (empty for rule files), its key in the mirror.
    facts : `~infra.mirror.sources.Facts`
        What it should be.
    state : str
        ``there``, ``missing`` or ``wrong``.
    """

    name: str
    instrument: str
    key: str
    facts: Facts
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
    """

    context: Context
    items: tuple[Item, ...]

    @property
    def to_copy(self) -> tuple[Item, ...]:
        """The files that are missing or wrong."""
        return tuple(item for item in self.items if item.state != "there")


def make_plan(source: Source, mirror: Mirror, context: str) -> Plan:
    """Find out what a context needs and what of it is there.

    Parameters
    ----------
    source : `~infra.mirror.sources.Source`
        Where files come from.
    mirror : `~infra.mirror.bucket.Mirror`
        Where they go.
    context : str
        A context's name, or ``latest`` for what the source calls operational.

    Raises
    ------
    ReferenceUnavailable
        If the source lacks a file, or has a wrong one.
    """
    name = operational_context(source.info) if context == "latest" else context
    with TemporaryDirectory() as folder:
        found = read_context(name, Path(folder), lambda file: _stage(file, source, Path(folder)))
    return Plan(found, tuple(_items(found, source, mirror)))


def copy(plan: Plan, source: Source, mirror: Mirror) -> Iterator[Item]:
    """Copy what is missing or wrong; yield each file when it is there.

    Raises
    ------
    ReferenceUnavailable
        If a file of the source is not what it should be.
    """
    for item in plan.to_copy:
        mirror.put(source.file(item.name, item.instrument), item.key, item.facts)
        yield item


def publish(plan: Plan, source: Source, mirror: Mirror) -> str:
    """Write the configuration, so that readers see the context; return which is operational.

    What the source calls operational becomes so if the mirror holds it, now or from before.
    """
    before = mirror.config()
    files = catalogue(before) if before else {}
    files |= {
        item.name: {"size": str(item.facts.size), "sha1sum": item.facts.sha1} for item in plan.items
    }
    candidates = [operational_context(source.info)]
    candidates += [operational_context(before)] if before else []
    operational = next((name for name in candidates if name in files), plan.context.name)
    mirror.write_config(source.info, files, operational)
    return operational


def _stage(name: str, source: Source, folder: Path) -> None:
    """Have a rule file where `crds` reads it."""
    path = folder / key_of(name, "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.file(name, "").read_bytes())


def _items(context: Context, source: Source, mirror: Mirror) -> Iterator[Item]:
    bad = set(source.info.get("bad_files_list", []))
    for name, key in context.keys.items():
        if name in bad and name in context.masks:
            continue  # the function refuses it by its name
        if name in bad:
            raise ReferenceUnavailable(f"{name}: {context.name} needs it, and it is listed as bad")
        instrument = context.masks.get(name, "")
        facts = source.facts(name, instrument)
        yield Item(name, instrument, key, facts, mirror.state(key, facts))
