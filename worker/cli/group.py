"""The group of commands: loads each when it is called, and makes our errors one line each."""

from importlib import import_module
from typing import Any, Final

import click

from statestore.errors import StoreError
from worker.cli.text import one_line
from worker.errors import AgentsError

# In the order of an execution's life, which is also the order of the help.
_COMMANDS: Final = {
    "enqueue": "worker.cli.enqueue:enqueue",
    "list": "worker.cli.listing:list_executions",
    "show": "worker.cli.show:show",
    "audit": "worker.cli.audit:audit",
    "watch": "worker.cli.watch:watch",
    "resume": "worker.cli.resume:resume",
    "approve": "worker.cli.approve:approve",
    "reject": "worker.cli.approve:reject",
    "send-event": "worker.cli.send_event:send_event",
    "cancel": "worker.cli.cancel:cancel",
    "recover": "worker.cli.recover:recover",
    "fork": "worker.cli.fork:fork",
    "rewind": "worker.cli.fork:rewind",
    "diff": "worker.cli.diff:diff",
    "stats": "worker.cli.stats:stats",
    "archive": "worker.cli.archive:archive",
    "delete": "worker.cli.delete:delete",
    "purge": "worker.cli.purge:purge",
    "copy": "worker.cli.copy:copy_executions",
    "migrate": "worker.cli.migrate:migrate",
    "settings": "worker.cli.settings:settings",
    "check": "worker.cli.check:check",
}


class AgentsGroup(click.Group):
    """A click group whose commands are imported at first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return super().get_command(ctx, cmd_name)
        module, _, name = target.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (AgentsError, StoreError) as error:
            raise click.ClickException(one_line(str(error))) from error
