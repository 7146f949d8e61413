"""What a retry is made of: the plan of its queues, the copy, the hand-off."""
