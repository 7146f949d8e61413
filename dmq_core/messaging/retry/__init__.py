"""What happens to a message whose handler failed: again now, again later, or parked."""
