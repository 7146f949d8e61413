"""The one place that knows pika, and the protocol that the rest of messaging knows it by."""
