"""The tree of `dmq` commands: their names, one line of help each, and where they are."""

from __future__ import annotations

import click

import dmq_core
from dmq_core.cli.groups import Entry, LazyGroup
from dmq_core.cli.options import json_parameter, target_parameters

_COMMANDS = {
    "start": Entry("lifecycle:start", "Make the cluster if need be, and start it."),
    "status": Entry("status:status", "Show the cluster and its nodes."),
    "stop": Entry("lifecycle:stop", "Stop every node and keep the data."),
    "destroy": Entry("lifecycle:destroy", "Remove the cluster's nodes and all their data."),
    "node": Entry("node:node", "List, add, remove, break and mend single nodes, read their logs."),
    "fault": Entry("fault:fault", "Break the cluster as a whole: alarms, cut and slow links, moved leaders and more."),
    "exchange": Entry("exchange:exchange", "List exchanges."),
    "queue": Entry("queue:queue", "List, show, declare and delete queues."),
    "connection": Entry("connection:connection", "List client connections."),
    "publish": Entry("publish:publish", "Publish messages and tell what became of each."),
    "consume": Entry("consume:consume", "Take messages from a queue."),
    "tail": Entry("tail:tail", "Watch messages pass without taking any."),
    "load": Entry("load:load", "Run a steady load and account for every message."),
    "proof": Entry("proof:proof", "Break something under load, and account for every message."),
    "demo": Entry("demo:demo", "Learn on the live cluster: guided demos that check their own claims."),
    "bench": Entry("bench:bench", "Measure confirmed publishing and acknowledged consuming beside raw pika."),
    "doctor": Entry("doctor:doctor", "Say what is wrong, and what to do."),
    "config": Entry("config:config", "Show the settings in effect."),
}


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"dmq {dmq_core.__version__}")
        ctx.exit()


_VERSION = click.Option(
    ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)

dmq = LazyGroup(
    name="dmq",
    help="A RabbitMQ cluster on your own machine: start it, watch it, break it on purpose.",
    epilog="The options above may stand before or after any command. 'dmq COMMAND --help' tells more.",
    params=[*target_parameters(), json_parameter(), _VERSION],
    entries=_COMMANDS,
)
