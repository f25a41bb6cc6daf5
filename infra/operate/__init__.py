"""The commands `queues` and `status`: the state of a stack, and the messages of its queues."""
