"""The CRDS mirror: rules, masks and configuration."""
