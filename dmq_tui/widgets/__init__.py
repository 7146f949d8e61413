"""Widgets that know nothing of RabbitMQ."""
