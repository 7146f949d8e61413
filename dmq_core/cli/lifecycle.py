"""`dmq start`, `dmq stop` and `dmq destroy`."""

from __future__ import annotations

import time

import click

from dmq_core.actions.gate import guard, guard_change
from dmq_core.cli import connect
from dmq_core.cli.options import Invocation, common_options, yes_option
from dmq_core.cli.output import confirm
from dmq_core.cli.status import show_status
from dmq_core.cluster.prerequisites import DockerState, Package
from dmq_core.cluster.protocol import Backend
from dmq_core.errors import BackendUnavailableError
from dmq_core.presentation import duration
from dmq_core.progress import ProgressListener


@click.command()
@click.option("--nodes", type=click.IntRange(1, 9), metavar="N", default=None, help="Number of nodes (default: 3).")
@click.option(
    "--backend",
    type=click.Choice(["auto", "docker", "local"]),
    default="auto",
    help="What runs the nodes (default: auto, Docker where it answers).",
)
@click.option("--rabbitmq", metavar="VERSION", default=None, help="RabbitMQ version, such as 4.3 or 4.0.")
@click.option("--install", is_flag=True, help="Install missing prerequisites with apt, if allowed.")
@common_options
def start(invocation: Invocation, nodes: int | None, backend: str, rabbitmq: str | None, install: bool) -> None:
    """Start the cluster; create it first if it does not exist.

    Returns once all nodes are running and connected to each other. Starting a running cluster changes nothing.
    """
    began = time.monotonic()
    out, settings = invocation.out, invocation.settings
    with out.progress() as progress:
        if install:
            guard_change("Install what is missing", read_only=settings.read_only.value)
            _install_server(backend, progress)
        cluster = connect.open_for_start(settings, backend=backend, nodes=nodes, rabbitmq=rabbitmq)
        guard(cluster, f"Start {cluster.name}", read_only=settings.read_only.value)
        try:
            cluster.start(progress)
        except BackendUnavailableError:
            if not (install and _installed_debootstrap(progress)):
                raise
            cluster.start(progress)
    out.say(f"{cluster.name} serves on {cluster.backend}, after {duration(time.monotonic() - began)}")
    show_status(out, cluster)


def _install_server(backend: str, progress: ProgressListener) -> None:
    machine = connect.inspect_machine()
    wanted = machine.missing
    if backend == Backend.LOCAL and machine.rabbitmq is None:
        wanted = (Package.RABBITMQ_SERVER,)
    connect.install(wanted, progress)


def _installed_debootstrap(progress: ProgressListener) -> bool:
    """Gets what builds the image; whether that may be why the start failed."""
    machine = connect.inspect_machine()
    if machine.docker is not DockerState.ANSWERS or machine.debootstrap:
        return False
    connect.install((Package.DEBOOTSTRAP,), progress)
    return True


@click.command()
@common_options
def stop(invocation: Invocation) -> None:
    """Stop all nodes; their data is kept."""
    cluster = connect.find_cluster(invocation.settings)
    guard(cluster, f"Stop {cluster.name}", read_only=invocation.settings.read_only.value)
    with invocation.out.progress() as progress:
        cluster.stop(progress)
    _done(invocation, cluster.name, "stopped")


@click.command()
@yes_option
@common_options
def destroy(invocation: Invocation, yes: bool) -> None:
    """Delete the cluster: all nodes and all their data."""
    cluster = connect.find_cluster(invocation.settings)
    guard(cluster, f"Destroy {cluster.name}", read_only=invocation.settings.read_only.value)
    count = len(cluster.nodes())
    confirm(f"Destroy {cluster.name}: {count} nodes and all their messages are deleted for good.", yes=yes)
    with invocation.out.progress() as progress:
        cluster.destroy(progress)
    _done(invocation, cluster.name, "destroyed")


def _done(invocation: Invocation, name: str, state: str) -> None:
    if invocation.out.json:
        invocation.out.document({"cluster": name, "state": state})
    else:
        invocation.out.text(f"{name} {state}")
