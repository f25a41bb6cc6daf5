"""What an operator does with the queues."""
