"""What a producer is made of: checks before the wire, futures, confirms, epochs."""
