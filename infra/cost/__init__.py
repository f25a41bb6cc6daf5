"""Prices of AWS, measured invocations, and estimates for many exposures."""
