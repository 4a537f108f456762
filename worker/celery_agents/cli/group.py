"""The group of commands. It loads each command when it is called, and prints our errors as one line each."""

from importlib import import_module
from typing import Any, Final

import click

# The order is that of an execution's life, which is also the order of the help.
_COMMANDS: Final = {
    "enqueue": "celery_agents.cli.commands.enqueue:enqueue",
    "list": "celery_agents.cli.commands.listing:list_executions",
    "show": "celery_agents.cli.commands.show:show",
    "audit": "celery_agents.cli.commands.audit:audit",
    "watch": "celery_agents.cli.commands.watch:watch",
    "resume": "celery_agents.cli.commands.resume:resume",
    "approve": "celery_agents.cli.commands.approve:approve",
    "reject": "celery_agents.cli.commands.approve:reject",
    "send-event": "celery_agents.cli.commands.send_event:send_event",
    "say": "celery_agents.cli.commands.say:say",
    "cancel": "celery_agents.cli.commands.cancel:cancel",
    "recover": "celery_agents.cli.commands.recover:recover",
    "fork": "celery_agents.cli.commands.fork:fork",
    "rewind": "celery_agents.cli.commands.fork:rewind",
    "diff": "celery_agents.cli.commands.diff:diff",
    "stats": "celery_agents.cli.commands.stats:stats",
    "session": "celery_agents.cli.commands.session:session",
    "webhooks": "celery_agents.cli.commands.webhooks:webhooks",
    "archive": "celery_agents.cli.commands.archive:archive",
    "delete": "celery_agents.cli.commands.delete:delete",
    "purge": "celery_agents.cli.commands.purge:purge",
    "erase": "celery_agents.cli.commands.erase:erase",
    "copy": "celery_agents.cli.commands.copy:copy_executions",
    "migrate": "celery_agents.cli.commands.migrate:migrate",
    "settings": "celery_agents.cli.commands.settings:settings",
    "check": "celery_agents.cli.commands.check:check",
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
        # Imported here, because every `celery` command of every project imports this file.
        from agent_statestore.errors import ExecutionNotFound, StoreError
        from celery_agents.cli.output.text import one_line
        from celery_agents.errors import AgentsError

        try:
            return super().invoke(ctx)
        except ExecutionNotFound as error:
            from celery_agents.cli.invocation import app_runtime, nothing_there

            raise click.ClickException(one_line(nothing_there(app_runtime(ctx), error.execution_id))) from error
        except (AgentsError, StoreError) as error:
            raise click.ClickException(one_line(str(error))) from error
