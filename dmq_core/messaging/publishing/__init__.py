"""What a producer is made of: checks before the wire, handles, confirms, epochs."""
