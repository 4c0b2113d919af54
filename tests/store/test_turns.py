"""A lock by turns."""

from __future__ import annotations

import threading

import pytest

from llsflow.store.turns import Turns


def waiting(turns: Turns) -> int:
    return len(turns._waiting)


def test_who_waits_comes_in_before_who_comes_again() -> None:
    turns, order = Turns(), []
    threads = []

    def take(name: int) -> None:
        with turns:
            order.append(name)

    with turns:
        for name in range(5):
            thread = threading.Thread(target=take, args=(name,))
            thread.start()
            threads.append(thread)
            while waiting(turns) <= name:
                pass
    with turns:
        order.append(99)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, 99]


def test_one_at_a_time() -> None:
    turns, counter = Turns(), [0]

    def count() -> None:
        for _ in range(500):
            with turns:
                seen = counter[0]
                counter[0] = seen + 1

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter == [4000]


def test_an_exception_hands_it_on() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns:
        raise KeyError
    with turns:
        pass


def test_an_interrupted_wait_leaves_the_queue_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()

    class Interrupted:
        def __init__(self) -> None:
            self.asked = 0

        def acquire(self) -> None:
            self.asked += 1
            if self.asked == 2:  # the first is its maker's
                raise KeyboardInterrupt

    with turns:
        monkeypatch.setattr("llsflow.store.turns.threading.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            turns.__enter__()
        monkeypatch.undo()
        assert waiting(turns) == 0
    with turns:
        pass
