"""Material made by the project itself: rules, masks and exposures of every mode."""
