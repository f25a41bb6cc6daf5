"""Compare the metadata of two jwst data models. Run by jwst's own interpreter."""

from typing import Any


def metadata_differences(ours: Any, theirs: Any, exempt: tuple[str, ...]) -> list[str]:
    """Return the differing metadata of two models, except those with some prefixes."""
    first, second = (model.to_flat_dict(include_arrays=False) for model in (ours, theirs))
    found = []
    for key in sorted(set(first) | set(second)):
        judged = key.startswith("meta.") and not key.removeprefix("meta.").startswith(exempt)
        if judged and first.get(key) != second.get(key):
            found.append(f"{key}: {first.get(key)!r} is not {second.get(key)!r}")
    return found
