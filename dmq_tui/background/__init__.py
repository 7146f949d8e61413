"""Work off the UI thread, and the messages in which it answers."""
