"""A RabbitMQ that starts in a moment: scripts that listen, answer and end like the real ones."""

from __future__ import annotations

import sys
from pathlib import Path

from dmq_core.cluster.local.installation import Installation
from dmq_core.versions import Version

SERVER = """#!PYTHON -SE
import json, os, pathlib, re, signal, sys, threading
from socketserver import BaseRequestHandler, StreamRequestHandler, ThreadingTCPServer

folder = pathlib.Path(os.environ["RABBITMQ_CONFIG_FILE"]).parent
orders = pathlib.Path(__file__).parent
fails = orders / ("fail-" + folder.name)
if fails.exists():
    reason = fails.read_text()
    if (orders / "fail-once").exists():
        fails.unlink()
    print("BOOT FAILED\\n===========\\nError during startup: " + reason, flush=True)
    sys.exit(1)
if (orders / "stubborn").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if (orders / "with-helper").exists():
    import subprocess
    subprocess.Popen(["sleep", "600"], start_new_session=True, env={**os.environ, "BINDIR": "erts"})
conf = (folder / "rabbitmq.conf").read_text()
amqp = int(re.search(r"listeners.tcp.1 = .*:(\\d+)", conf)[1])
management = int(re.search(r"management.tcp.port = (\\d+)", conf)[1])
peers = re.findall(r"classic_config.nodes.\\d+ = (\\S+)", conf) or [os.environ["RABBITMQ_NODENAME"]]

class Amqp(BaseRequestHandler):
    def handle(self):
        self.request.recv(8)
        self.request.sendall(b"\\x01\\x00\\x00")

class Api(StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        body = json.dumps([{"name": p, "running": True, "partitions": []} for p in peers])
        self.wfile.write(f"HTTP/1.0 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())

ThreadingTCPServer.allow_reuse_address = True
threading.Thread(target=ThreadingTCPServer(("127.0.0.1", amqp), Amqp).serve_forever, daemon=True).start()
ThreadingTCPServer(("127.0.0.1", management), Api).serve_forever()
"""

EPMD = """#!PYTHON -SE
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("-port") + 1])))
threading.Event().wait()
"""

CTL = """#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >>ctl-calls
if [ -e ctl-fails ]; then echo no luck >&2; exit 69; fi
"""


class MakeBelieve:
    """An installation of make-believe scripts in `folder`, and what they were told to do."""

    def __init__(self, folder: Path, version: Version | None = None) -> None:
        self._folder = folder
        folder.mkdir()
        for name, text in (("rabbitmq-server", SERVER), ("epmd", EPMD), ("rabbitmqctl", CTL)):
            (folder / name).write_text(text.replace("PYTHON", sys.executable, 1))
            (folder / name).chmod(0o755)
        self.installation = Installation(version or Version(4, 3, 6), folder, folder / "epmd")

    def fail(self, node: str, reason: str, *, once: bool = False) -> None:
        """Makes `node` give up while it boots, for `reason`."""
        (self._folder / f"fail-{node}").write_text(reason)
        if once:
            (self._folder / "fail-once").touch()

    def mend(self, node: str) -> None:
        """Lets `node` boot again."""
        (self._folder / f"fail-{node}").unlink()

    def order(self, what: str) -> None:
        """`stubborn`: nodes ignore SIGTERM; `with-helper`: each starts a process of its own session; `ctl-fails`."""
        (self._folder / what).touch()

    def countermand(self, what: str) -> None:
        """Takes an order back."""
        (self._folder / what).unlink()

    @property
    def ctl_calls(self) -> list[str]:
        """What rabbitmqctl was called with."""
        calls = self._folder / "ctl-calls"
        return calls.read_text().splitlines() if calls.exists() else []
