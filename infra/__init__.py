"""What stands around the function: samples, the embedded AWS, the demo, contracts."""
