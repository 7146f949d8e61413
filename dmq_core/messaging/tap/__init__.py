"""Copies of messages that pass, without taking any from a consumer."""
