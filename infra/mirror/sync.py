"""Copy the missing and wrong files of a context into the mirror, then write its configuration."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from core import EQUALS_JWST
from core.errors import ReferenceUnavailable
from handler.crds.mirror import FileDigest, MirrorConfig
from handler.crds.rules import BUILD, LATEST
from infra.cli import plural
from infra.mirror.bucket import Mirror, age, contexts_of
from infra.mirror.contexts import Context, read_context
from infra.mirror.sources import Source


@dataclass(frozen=True)
class Item:
    """A mapping or mask of a context, and its state in the mirror."""

    name: str
    instrument: str  # lower case; empty for mappings
    key: str  # below the mirror's prefix
    digest: FileDigest  # of the source
    state: str  # in the mirror: there, missing or wrong


@dataclass(frozen=True)
class Plan:
    """A context's files, compared with those of the mirror, and values for `write_config`."""

    context: Context
    items: tuple[Item, ...]  # mappings first; without masks that are bad files
    instruments: frozenset[str] | None  # new restriction; empty for all, None to keep the present
    restricted_to: frozenset[str]  # instruments that the context was read for; empty for all
    build: str  # build context to record; empty for none
    prunes: int  # of the mirror's configuration when compared; `write_config` fails if it changed

    @property
    def to_copy(self) -> tuple[Item, ...]:
        """The files that the mirror lacks or has wrong."""
        return tuple(item for item in self.items if item.state != "there")


def plan_sync(
    source: Source, mirror: Mirror, context: str, instruments: frozenset[str] | None = None
) -> Plan:
    """Compare the mirror with a context: a name, or the source's ``latest`` or ``build``.

    `instruments` (upper case) is the mirror's new restriction; empty lifts the present one, None
    keeps it. Raises `ReferenceUnavailable` during a prune, or if the source lacks a file.
    """
    named = {LATEST: lambda: source.config.operational_context, BUILD: source.build}
    name = named[context]() if context in named else context
    before = mirror.config()
    if before and before.prunes % 2:
        raise ReferenceUnavailable(
            f"{mirror.location}: a prune is deleting files or was interrupted, expected none; wait "
            "for it, or run dq-init mirror prune again, then repeat the sync"
        )
    restricted_to = instruments
    if restricted_to is None:
        restricted_to = before.instruments if before else frozenset()
    needed = read_context(name, source, restricted_to)
    return Plan(
        needed,
        tuple(_items(needed, source, mirror)),
        instruments,
        restricted_to,
        build=name if context == BUILD else "",
        prunes=before.prunes if before else 0,
    )


def _items(context: Context, source: Source, mirror: Mirror) -> Iterator[Item]:
    bad, errors = source.config.bad_files, {}
    for name, key in context.keys.items():
        if name in bad and name in context.masks:
            continue  # the function rejects it by its name
        if name in bad:
            raise ReferenceUnavailable(
                f"{context.name}: needs {name}, a bad file of CRDS; sync another context"
            )
        instrument = context.masks.get(name, "")
        try:
            digest = source.digest(name, instrument)
        except ReferenceUnavailable as exc:
            errors[name] = str(exc)
            continue
        yield Item(name, instrument, key, digest, mirror.state(key, digest))
    if errors:
        raise ReferenceUnavailable(
            f"{context.name}: the source lacks {plural(len(errors), 'file')}: {', '.join(errors)}; "
            f"the first error: {next(iter(errors.values()))}"
        )


def copy(plan: Plan, source: Source, mirror: Mirror) -> Iterator[Item]:
    """Copy the missing and wrong files of a plan; yield each after its upload."""
    for item in plan.to_copy:
        mirror.put(source.file(item.name, item.instrument), item.key, item.digest)
        yield item


def write_config(plan: Plan, source: Source, mirror: Mirror) -> str:
    """Write the mirror's configuration after the copies; return its operational context.

    That is the first that the mirror holds of: the one chosen by `use`, the source's, the one
    before, the plan's. `ReferenceUnavailable` if the mirror was pruned or extended since the plan.
    """

    def published(config: MirrorConfig) -> MirrorConfig:
        _check_still_valid(plan, config, mirror)
        files = {**config.catalogue, **{item.name: item.digest for item in plan.items}}
        of_source = source.config.operational_context
        candidates = [of_source, config.operational_context, plan.context.name]
        if config.held_by_hand:
            candidates.insert(0, config.operational_context)
        operational = next(name for name in candidates if name in files)
        # Only a source newer than all before it can remove a file from the list.
        newer = age(of_source) > age(config.bad_files_of)
        return replace(
            config,
            operational_context=operational,
            previous_context=_previous(config, operational),
            source_context=of_source,
            catalogue=files,
            bad_files=source.config.bad_files | (frozenset() if newer else config.bad_files),
            bad_files_of=of_source if newer else config.bad_files_of,
            instruments=config.instruments if plan.instruments is None else plan.instruments,
            builds={**config.builds, **({EQUALS_JWST: plan.build} if plan.build else {})},
        )

    empty = MirrorConfig("", frozenset(), {})
    _, after = mirror.update(published, empty, source.config.other)
    return after.operational_context


def _check_still_valid(plan: Plan, config: MirrorConfig, mirror: Mirror) -> None:
    if config.prunes != plan.prunes:
        raise ReferenceUnavailable(f"{mirror.location}: was pruned meanwhile; repeat the sync")
    wanted = config.instruments if plan.instruments is None else plan.instruments
    if plan.restricted_to and (not wanted or wanted - plan.restricted_to):
        raise ReferenceUnavailable(
            f"{mirror.location}: was extended to other instruments meanwhile; repeat the sync"
        )


def incomplete_contexts(mirror: Mirror) -> Iterator[str]:
    """Yield the contexts that the mirror lists but of which a mapping or a mask is missing."""
    config = mirror.operational()
    for name in contexts_of(config):
        try:
            needed = mirror.context(name).keys.keys()
        except ReferenceUnavailable:  # a mapping is missing
            yield name
            continue
        if needed - config.catalogue.keys() - config.bad_files:
            yield name


def use(context: str, mirror: Mirror) -> tuple[MirrorConfig, MirrorConfig]:
    """Make a context of the mirror operational; return the configuration before and after.

    Later syncs keep a file name, but may replace ``latest``, the operational context of the last
    sync's source. Raises `ReferenceUnavailable` if the mirror lacks a file of the context.
    """

    def used(config: MirrorConfig) -> MirrorConfig:
        name = context
        if context == LATEST:
            name = config.source_context or config.operational_context
        keys = mirror.context(name).keys.keys()
        missing = sorted(keys - config.catalogue.keys() - config.bad_files)
        if missing:
            raise ReferenceUnavailable(
                f"{mirror.location}: lacks {len(missing)} files of {name}, such as {missing[0]}; "
                f"run dq-init mirror sync {mirror.location} --context {name}"
            )
        return replace(
            config,
            operational_context=name,
            previous_context=_previous(config, name),
            held_by_hand=context != LATEST,
        )

    return mirror.update(used)


def _previous(before: MirrorConfig, operational: str) -> str:
    if before.operational_context != operational:
        return before.operational_context
    return before.previous_context
