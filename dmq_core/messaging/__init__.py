"""Producers, consumers and taps; `transport` is the only module that knows pika."""
