"""The commands `queues` and `status`: show a stack; redrive or discard messages of its queues."""
