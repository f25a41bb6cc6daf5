"""Sample exposures, masks and rules for the tests."""
