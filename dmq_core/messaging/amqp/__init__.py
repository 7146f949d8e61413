"""AMQP 0-9-1 frames in bytes, read and written."""
