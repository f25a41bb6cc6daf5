"""The state of a stack: queues, failures, alarms."""
