"""Processing exposures that are there already, wherever they lie."""
