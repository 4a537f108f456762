"""Bindings of the embedded broker: of processes that start at once, none loses its own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kombu import Connection, Exchange, Queue

PROCESSES = 8


def connect(folder: Path) -> Connection:
    for name in ("messages", "control"):
        (folder / name).mkdir(exist_ok=True)
    options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
    }
    return Connection(
        "filesystem://localhost/", transport="celery_agents.host.files_broker:Transport", transport_options=options
    )


def bind(folder: Path, number: int) -> None:
    with connect(folder) as connection, connection.channel() as channel:
        Queue(f"own-{number}", Exchange("all", type="fanout"), channel=channel).declare()


def test_all_of_many_bindings_made_at_once_are_kept(tmp_path: Path) -> None:
    connect(tmp_path)
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(lambda number: bind(tmp_path, number), range(PROCESSES)))
    with connect(tmp_path) as connection, connection.channel() as channel:
        assert {binding.queue for binding in channel.get_table("all")} == {f"own-{n}" for n in range(PROCESSES)}


def test_a_deleted_queue_is_unbound(tmp_path: Path) -> None:
    with connect(tmp_path) as connection, connection.channel() as channel:
        queue = Queue("gone", Exchange("all", type="fanout"), channel=channel)
        queue.declare()
        assert channel.get_table("all")
        queue.delete()
        assert channel.get_table("all") == []


def test_another_folder_has_bindings_of_its_own(tmp_path: Path) -> None:
    """Otherwise what is sent in the second folder would be bound to nothing, and lost."""
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        with connect(folder) as connection, connection.SimpleQueue("work") as queue:
            queue.put(name)
            assert queue.get(timeout=5).payload == name
