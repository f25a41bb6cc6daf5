"""The demo: generated exposures and rules, and an embedded AWS that the tests share."""
