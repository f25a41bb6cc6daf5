"""The packages of the extras, which the function itself does not need."""

import sys

__all__ = ["OPTIONAL", "how_to_install"]

OPTIONAL = {
    "duckdb": "duckdb>=1.4",
    "flask": "flask>=3.0",
    "flask_cors": "flask-cors>=5.0",
    "jinja2": "jinja2>=3.1",
    "matplotlib": "matplotlib>=3.10",
    "moto": "moto[events,s3,sqs]>=5.1",
    "rich": "rich>=14.0",
}
"""Import names, and what pyproject.toml requires of them in its extras."""


def how_to_install(error: ModuleNotFoundError) -> str:
    """Return one line that says how to install a missing package of an extra.

    Parameters
    ----------
    error : ModuleNotFoundError
        The failed import.

    Returns
    -------
    str
        The line.

    Raises
    ------
    ModuleNotFoundError
        The error itself if the module belongs to none of the extras: that is a bug.
    """
    name = (error.name or "").partition(".")[0]
    if name not in OPTIONAL:
        raise error
    # Not an extra of this project: `pip install '.[reprocess]'` would replace an editable install.
    return (
        f"Python package {name}: not installed, expected {OPTIONAL[name]}; "
        f"run {sys.executable} -m pip install '{OPTIONAL[name]}'"
    )
