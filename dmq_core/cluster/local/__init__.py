"""Clusters whose nodes are `rabbitmq-server` processes of this machine."""
