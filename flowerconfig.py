"""Read by `celery -A worker flower` when it is started in this folder, or told to by `--conf`."""

from worker.flower_pages import show_revoke_for_live_states

show_revoke_for_live_states()
