"""Workers begin together or not at all, and each says why within seconds; everything on the loopback device."""

import concurrent.futures
import socket
import time

import pytest

from awp_tf.infra.cluster import Cluster
from awp_tf.infra.doorbell import ring
from awp_tf.infra.errors import UserError


def addresses(count):
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    names = tuple(f"127.0.0.1:{door.getsockname()[1]}" for door in doors)
    for door in doors:
        door.close()
    return names


def outcomes(calls, seconds=5.0):
    """What each of the calls (cluster, task), made side by side, raised; empty where it began."""

    def call(cluster, task):
        try:
            ring(cluster, task, seconds)
        except UserError as error:
            return str(error)
        return ""

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return [future.result(30) for future in [pool.submit(call, *each) for each in calls]]


def test_workers_that_are_all_there_begin():
    workers = addresses(3)
    assert outcomes([(Cluster(workers, i), "a\nb") for i in (2, 0, 1)]) == ["", "", ""]


def test_absent_workers_are_named_within_seconds():
    workers, start = addresses(3), time.monotonic()
    found = outcomes([(Cluster(workers, i), "") for i in (0, 2)], seconds=1.0)
    assert found == [f"cluster: worker 1 ({workers[1]}) did not come within 1 s; start all workers."] * 2
    assert outcomes([(Cluster(workers, 1), "")], 1.0) == [
        f"cluster: worker 0 ({workers[0]}) did not answer within 1 s; start all workers."
    ]
    assert time.monotonic() - start < 15


def test_another_configuration_is_refused_by_all():
    workers = addresses(2)
    found = outcomes([(Cluster(workers, 0), "x = 1\nGAMMA = 0.1"), (Cluster(workers, 1), "x = 1\nGAMMA = 0.2")])
    assert (
        found
        == [
            "cluster: expected the same configuration on all workers, received on worker 1: GAMMA = 0.2; on worker 0: "
            "GAMMA = 0.1."
        ]
        * 2
    )


def test_another_list_of_workers_is_refused_by_all():
    workers = addresses(3)
    found = outcomes([(Cluster(workers[:2], 0), ""), (Cluster((workers[0], workers[2]), 1), "")])
    assert found[0] == found[1]
    assert found[0].startswith("cluster: expected the same workers everywhere")


def test_somebody_else_at_the_door_is_not_let_in():
    workers = addresses(2)

    def stranger():
        host, port = workers[0].split(":")
        for _ in range(50):
            try:
                with socket.create_connection((host, int(port)), timeout=1) as line:
                    line.sendall(b"GET / HTTP/1.1\n")
                    return
            except OSError:
                time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        knock = pool.submit(stranger)
        assert outcomes([(Cluster(workers, i), "") for i in (0, 1)]) == ["", ""]
        knock.result(10)


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        name = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"cluster: expected to listen at {name}"):
            ring(Cluster((name, "127.0.0.1:1"), 0), "", 1.0)
