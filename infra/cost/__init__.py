"""What it costs: AWS's prices, and what an exposure takes of each."""
