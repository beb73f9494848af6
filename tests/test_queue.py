"""The queue of clips: equal turns, first in first out, bounded."""

import random

from edged.offload.queue import PER_CAMERA, FairQueue


def drained(queue):
    taken = []
    while len(queue):
        taken.append(queue.take())
    return taken


def test_an_empty_queue_gives_nothing():
    assert FairQueue().take() is None and len(FairQueue()) == 0


def test_clips_of_one_camera_keep_their_order():
    queue = FairQueue(limit=9)
    assert all(queue.put("gate", number) for number in range(9))
    assert drained(queue) == [("gate", number) for number in range(9)]


def test_cameras_take_turns_whoever_filled_the_queue_first():
    queue = FairQueue(limit=3)
    for camera in ("gate", "yard", "hall"):
        for number in range(3):
            queue.put(camera, number)
    assert [camera for camera, _ in drained(queue)] == ["gate", "yard", "hall"] * 3


def test_a_camera_that_just_had_its_turn_waits_for_the_others():
    queue = FairQueue()
    queue.put("gate", 1)
    assert queue.take() == ("gate", 1)
    queue.put("yard", 1)
    queue.put("gate", 2)
    queue.put("gate", 3)
    queue.put("hall", 1)
    assert [camera for camera, _ in drained(queue)] == ["yard", "gate", "hall", "gate"]


def test_one_camera_has_at_most_two_waiting_and_takes_no_room_from_others():
    queue = FairQueue()
    assert [queue.put("gate", number) for number in range(4)] == [True] * PER_CAMERA + [False, False]
    assert queue.put("yard", 0)
    assert queue.waiting("gate") == (0, 1) and queue.waiting("hall") == () and len(queue) == 3


def test_what_is_put_back_is_the_very_next_even_past_the_limit():
    queue = FairQueue()
    for camera in ("gate", "yard"):
        queue.put(camera, 1)
        queue.put(camera, 2)
    source, item = queue.take()
    queue.put("gate", 3)
    queue.put_back(source, item)
    assert drained(queue) == [("gate", 1), ("yard", 1), ("gate", 2), ("yard", 2), ("gate", 3)]


def test_what_is_dropped_is_gone_and_the_others_stay():
    queue = FairQueue()
    for number in (1, 2):
        queue.put("gate", number)
        queue.put("yard", number)
    assert queue.drop("gate") == [1, 2] and queue.drop("gate") == [] and queue.drop("hall") == []
    assert drained(queue) == [("yard", 1), ("yard", 2)]
    assert queue.put("gate", 5) and queue.take() == ("gate", 5)


def test_whatever_happens_nobody_waits_longer_than_one_turn_of_each_other():
    """A seeded storm: between two turns of a camera that has something waiting, no other has more than one."""
    choose, cameras = random.Random(3), ["gate", "yard", "hall", "door"]
    queue, since = FairQueue(), {camera: [] for camera in cameras}
    for number in range(4000):
        if choose.random() < 0.6:
            camera = choose.choices(cameras, [9, 3, 1, 1])[0]
            if not queue.waiting(camera):
                since[camera] = []
            queue.put(camera, number)
            continue
        taken = queue.take()
        if taken is None:
            continue
        for camera in cameras:
            if camera != taken[0] and queue.waiting(camera):
                since[camera].append(taken[0])
                assert len(set(since[camera])) == len(since[camera]), camera
        since[taken[0]] = []
    assert len(queue) == sum(len(queue.waiting(camera)) for camera in cameras)
