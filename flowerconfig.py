"""Read by `celery -A celery_agents flower` when it is started in this folder, or told to by `--conf`."""

from celery_agents.flower.pages import show_revoke_for_live_states

show_revoke_for_live_states()
