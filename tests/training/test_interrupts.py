"""An interrupt waits for the end of a block, and whoever had the signal before has it again."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ppo_lab.interrupts import GUARD


def press():
    os.kill(os.getpid(), signal.SIGINT)


def handler():
    return signal.getsignal(signal.SIGINT)


@pytest.fixture(autouse=True)
def as_it_was():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def block(*actions):
    with GUARD:
        for action in actions:
            action()


def fail():
    raise ValueError("the error")


@pytest.fixture(params=["alone", "in a loop"])
def looped(request):
    if request.param == "alone":
        yield
    else:
        with GUARD.loop():
            yield


@pytest.mark.usefixtures("looped")
def test_a_press_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        block(press, lambda: done.append("all of it"))
    assert done
    block()  # nothing is left of it


@pytest.mark.usefixtures("looped")
def test_a_second_press_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt):
        block(press, press, lambda: done.append("not reached"))
    assert not done
    block()


@pytest.mark.usefixtures("looped")
def test_between_blocks_a_press_is_what_it_always_is():
    block()
    with pytest.raises(KeyboardInterrupt):
        press()


def test_python_s_own_handler_is_back_after_the_loop():
    block()
    assert handler() is signal.default_int_handler
    with GUARD.loop(), GUARD.loop():
        block()
        assert handler() is not signal.default_int_handler  # what saves the time
    assert handler() is signal.default_int_handler


@pytest.mark.usefixtures("looped")
def test_a_handler_of_one_s_own_has_the_signal_between_blocks():
    seen = []

    def mine(*_):
        seen.append("mine")

    signal.signal(signal.SIGINT, mine)
    for turn in range(1, 4):
        with pytest.raises(KeyboardInterrupt):
            block(press)
        assert handler() is mine
        press()
        assert seen == ["mine"] * turn


def test_a_handler_that_calls_the_one_before_it():
    with GUARD.loop():
        block()
        before, seen = handler(), []
        signal.signal(signal.SIGINT, lambda *arguments: (seen.append("mine"), before(*arguments)))
        block()
        with pytest.raises(KeyboardInterrupt):
            press()
        assert seen == ["mine"]
        with pytest.raises(KeyboardInterrupt):
            block(press)
        assert seen == ["mine"]


def test_it_leaves_a_handler_alone_that_came_after_it():
    with GUARD.loop():
        block()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert handler() == signal.SIG_IGN


def test_who_ends_at_a_press_still_does():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with GUARD.loop():
        with pytest.raises(KeyboardInterrupt):
            block(press)
        assert handler() == signal.SIG_DFL  # between blocks


def test_who_ignores_interrupts_or_only_takes_notes_is_left_to_that():
    class Notes:
        only_notes, seen = True, 0

        def __call__(self, *_):
            self.seen += 1

    notes = Notes()
    for known in (signal.SIG_IGN, notes):
        signal.signal(signal.SIGINT, known)
        block(press, lambda known=known: handler() == known or fail())
    assert notes.seen == 1


@pytest.mark.usefixtures("looped")
def test_an_error_comes_first():
    with pytest.raises(ValueError, match="the error"):
        block(press, fail)
    block()


@pytest.mark.parametrize("when", ["in the inner block", "after it"])
def test_of_blocks_in_blocks_the_outermost_counts(when):
    done = []
    inner = (lambda: block(press)) if when == "in the inner block" else (lambda: block())
    after = press if when == "after it" else list
    with pytest.raises(KeyboardInterrupt):
        block(inner, after, lambda: done.append("the rest of the outer block"))
    assert done
    assert handler() is signal.default_int_handler


def test_loops_that_take_turns():
    """Two trainings side by side, one of which ends first."""
    one, other = GUARD.loop(), GUARD.loop()
    one.__enter__()
    other.__enter__()
    block()
    one.__exit__(None, None, None)
    with pytest.raises(KeyboardInterrupt):
        block(press)
    other.__exit__(None, None, None)
    assert handler() is signal.default_int_handler


def test_in_another_thread_the_block_just_runs():
    seen = []

    def run():
        with GUARD.loop():
            block(lambda: seen.append(handler()))

    thread = threading.Thread(target=run)
    with GUARD:
        thread.start()
        thread.join()
        inside = handler()
    assert seen == [inside]
    assert inside is not signal.default_int_handler
    assert handler() is signal.default_int_handler
