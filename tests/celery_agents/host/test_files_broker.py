"""Processes that start at the same moment on the embedded broker do not trip over each other's files."""

import subprocess
import sys
from pathlib import Path

import pytest
from kombu import Connection

from tests.services.machine import scaled

SCRIPT = """
import sys
from kombu import Connection, Exchange, Queue
folder, count = sys.argv[1], int(sys.argv[2])
exchange = Exchange("shared", type="fanout")
with Connection("filesystem://localhost/", transport=sys.argv[3], transport_options={
    "data_folder_in": folder + "/m", "data_folder_out": folder + "/m", "control_folder": folder + "/c"
}) as connection:
    channel = connection.channel()
    queue = Queue(f"own-{sys.argv[4]}", exchange)(channel)
    print("ready", flush=True)
    sys.stdin.readline()
    queue.declare()
    for number in range(count):
        channel.basic_publish(channel.prepare_message("x" * 5000), "", "work")
        message = channel.basic_get("work", no_ack=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    (tmp_path / "c").mkdir()
    return tmp_path


def connection(folder: Path) -> Connection:
    options = {"data_folder_in": f"{folder}/m", "data_folder_out": f"{folder}/m", "control_folder": f"{folder}/c"}
    return Connection(
        "filesystem://localhost/", transport="celery_agents.host.files_broker:Transport", transport_options=options
    )


def test_processes_that_bind_and_publish_at_once_read_no_half_written_file(folder: Path) -> None:
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                SCRIPT,
                str(folder),
                "150",
                "celery_agents.host.files_broker:Transport",
                str(number),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=scaled(60))[1] for process in processes]

    assert [process.returncode for process in processes] == [0] * 6, errors
    with connection(folder) as reading:
        table = reading.channel().get_table("shared")
    assert sorted(binding.queue for binding in table) == [f"own-{number}" for number in range(6)]
    assert not list(folder.rglob("*.part"))


def test_an_unreadable_message_is_dropped_and_the_next_one_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "m" / "!left-by-a-killed-client.work.msg").touch()
    with connection(folder) as one:  # which reads in the order of names, "!" before any digit
        channel = one.channel()
        channel.basic_publish(channel.prepare_message("hello"), "", "work")
        channel.basic_get("work", no_ack=True)
        message = channel.basic_get("work", no_ack=True)
    assert message is not None
    assert message.payload == "hello"
    assert "was dropped" in caplog.text


def test_messages_are_read_in_the_order_of_their_age_whatever_the_hosts_uptime(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection(folder) as one:
        channel = one.channel()
        for milliseconds in (999, 1000, 9_999_999, 10_000_000):
            monkeypatch.setattr("time.monotonic_ns", lambda now=milliseconds: now * 1_000_000)
            channel.basic_publish(channel.prepare_message(str(milliseconds)), "", "work")
        monkeypatch.undo()
        read = [channel.basic_get("work", no_ack=True).payload for _ in range(4)]
    assert read == ["999", "1000", "9999999", "10000000"]
