"""The tree of `dmq` commands: their names, one line of help each, and where they are."""

from __future__ import annotations

import click

import dmq_core
from dmq_core.cli.groups import Entry, LazyGroup
from dmq_core.cli.options import json_parameter, target_parameters

_COMMANDS = {
    "start": Entry("lifecycle:start", "Start the cluster; create it first if it does not exist."),
    "status": Entry("status:status", "Show the cluster and its nodes."),
    "stop": Entry("lifecycle:stop", "Stop all nodes; their data is kept."),
    "destroy": Entry("lifecycle:destroy", "Delete the cluster: all nodes and all their data."),
    "node": Entry("node:node", "Manage single nodes: list, add, remove, kill, pause, isolate and more; show logs."),
    "fault": Entry("fault:fault", "Cause cluster-wide faults: alarms, cut or slow links, moved leaders and more."),
    "exchange": Entry("exchange:exchange", "List exchanges."),
    "queue": Entry("queue:queue", "List, show, declare and delete queues."),
    "connection": Entry("connection:connection", "List client connections."),
    "publish": Entry("publish:publish", "Publish messages and report the outcome of each."),
    "consume": Entry("consume:consume", "Consume messages from a queue."),
    "tail": Entry("tail:tail", "Watch messages as they pass; none is consumed."),
    "load": Entry("load:load", "Run a steady load and account for every message."),
    "proof": Entry("proof:proof", "Cause a fault under load and account for every message."),
    "demo": Entry("demo:demo", "Run guided demos on the cluster; each checks its own claims."),
    "bench": Entry("bench:bench", "Measure publishing and consuming rates next to plain pika."),
    "doctor": Entry("doctor:doctor", "Check the setup and the cluster: what is wrong, and what to do."),
    "config": Entry("config:config", "Show the settings in effect and where each comes from."),
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
    help="Run a RabbitMQ cluster on your own machine: start it, watch it, break it on purpose.",
    epilog="These options may be given before or after any command. See 'dmq COMMAND --help' for details.",
    params=[*target_parameters(), json_parameter(), _VERSION],
    entries=_COMMANDS,
)
