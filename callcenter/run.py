"""What `make run` starts: everything at a desk, in one go, without a setting.

Fills in what nobody set, prepares the database, and runs the server and the job worker until it is
told to end or one of them ends by itself.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from typing import Final
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command
from django.db import Error, connections
from django.db.models import Q

from callcenter.checks import refuse_on_mistakes
from callcenter.desk import BASE_DIR, fill_in
from callcenter.supervise import Program, run_together

HOST: Final = "127.0.0.1"
PORT: Final = 5004
#: Of the range that Ofcom keeps for drama: it rings nobody.
DEMO_NUMBER: Final = "442079460000"
ADMIN: Final = "admin"
_WORKER_PATIENCE_S: Final = 15.0
#: Beyond DRAIN_SECONDS, for the server to close what is left.
_SERVER_PATIENCE_S: Final = 30.0


def main() -> int:
    """The exit status: 0 when it was told to end, 1 when it could not start or something died."""
    fill_in()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "callcenter.settings")
    django.setup()
    refuse_on_mistakes()
    port = local_port(settings.PUBLIC_URL)
    if trouble := port_trouble(port):
        return _refuse(trouble, "PUBLIC_URL=http://127.0.0.1:5010 make run takes another port.")
    try:
        call_command("migrate", interactive=False, verbosity=0)
        password = make_admin()
        make_demo_number()
    except Error as away:
        told = " ".join(str(away).split())
        return _refuse(f"The database cannot be used: {told}", "Start it, or mend DATABASE_URL.")
    call_command("collectstatic", interactive=False, verbosity=0)
    connections.close_all()
    print(welcome(f"{settings.PUBLIC_URL}/admin/", password), flush=True)
    return run_together(programs(port), BASE_DIR)


def local_port(public_url: str) -> int:
    """PUBLIC_URL's port if it names this machine, else the usual one (a tunnel leads to it)."""
    parts = urlsplit(public_url)
    return parts.port or PORT if parts.hostname in (HOST, "localhost") else PORT


def port_trouble(port: int) -> str:
    """Why nothing can listen there; nothing if it can."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        return f"Port {port} of {HOST} cannot be used: {error.strerror}."
    return ""


def make_admin() -> str:
    """A superuser if there is none: its password, which is kept nowhere; else nothing."""
    from django.contrib.auth.models import User

    if User.objects.filter(Q(is_superuser=True) | Q(username=ADMIN)).exists():
        return ""
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser(ADMIN, password=password)
    return password


def make_demo_number() -> None:
    """A number to ring in the sandbox, if there is none yet."""
    from sessions_app.models import Agent, PhoneNumber

    agent = Agent.objects.filter(is_default=True).first()
    if agent is not None and not PhoneNumber.objects.exists():
        PhoneNumber.objects.create(number=DEMO_NUMBER, label="Demo", agent=agent)


def welcome(address: str, password: str) -> str:
    """Where to go, and the password while it is known, in a box that is seen among log lines."""
    lines = [f"Open {address}"]
    if password:
        lines += [
            f"User: {ADMIN}   Password: {password}",
            "The password is shown only now; `manage.py changepassword` makes another.",
        ]
    width = max(map(len, lines))
    rule = f"+-{'-' * width}-+"
    return "\n".join(["", rule, *(f"| {line.ljust(width)} |" for line in lines), rule, ""])


def programs(port: int) -> list[Program]:
    """The server and the worker, in the order in which they end."""
    server = ["-m", "callcenter.server", "-b", HOST, "-p", str(port)]
    worker = ["manage.py", "db_worker", "--no-reload", "--no-startup-delay"]
    return [
        Program("server", [sys.executable, *server], settings.DRAIN_SECONDS + _SERVER_PATIENCE_S),
        Program("job worker", [sys.executable, *worker], _WORKER_PATIENCE_S),
    ]


def _refuse(what: str, mend: str) -> int:
    print(f"{what}\n{mend}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # before anything ran: the shell's way of saying SIGINT
