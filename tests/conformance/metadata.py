"""Metadata of two of jwst's data models, compared. Run by jwst's own interpreter."""

from typing import Any


def metadata_differences(ours: Any, theirs: Any, exempt: tuple[str, ...]) -> list[str]:
    """Say in which metadata two models differ, but those whose names begin so."""
    first, second = (model.to_flat_dict(include_arrays=False) for model in (ours, theirs))
    found = []
    for key in sorted(set(first) | set(second)):
        judged = key.startswith("meta.") and not key.removeprefix("meta.").startswith(exempt)
        if judged and first.get(key) != second.get(key):
            found.append(f"{key}: {first.get(key)!r} is not {second.get(key)!r}")
    return found
