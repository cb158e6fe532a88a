"""An interrupt waits for the end of a block, and whoever had the signal before has it again."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ppo_lab.interrupts import interrupt_guard


def press():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def as_it_was():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def block(*actions):
    """What happened in one block of a guard of its own."""
    with interrupt_guard() as guard, guard:
        for action in actions:
            action()


def fail():
    raise ValueError("the error")


def test_a_press_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        block(press, lambda: done.append("all of it"))
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_press_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt):
        block(press, press, lambda: done.append("not reached"))
    assert not done


def test_each_press_is_for_one_block():
    with interrupt_guard() as guard:
        with pytest.raises(KeyboardInterrupt), guard:
            press()
        with guard:  # nothing is left of it
            pass


def test_between_blocks_the_handler_from_before_has_the_signal():
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append("mine"))
    with interrupt_guard() as guard:
        with guard:
            pass
        press()
        assert seen == ["mine"]
    press()
    assert seen == ["mine"] * 2


def test_a_handler_that_somebody_puts_there_in_between_is_respected():
    seen = []

    def mine(*_):
        seen.append("mine")

    with interrupt_guard() as guard:
        with guard:
            pass
        signal.signal(signal.SIGINT, mine)  # as JupyterLab's kernel does before every cell
        with pytest.raises(KeyboardInterrupt), guard:
            press()
        press()
    assert seen == ["mine"]
    assert signal.getsignal(signal.SIGINT) is mine


def test_it_leaves_a_handler_alone_that_came_after_it():
    with interrupt_guard() as guard:
        with guard:
            pass
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_who_ignores_interrupts_or_only_takes_notes_is_left_to_that():
    class Notes:
        only_notes, seen = True, 0

        def __call__(self, *_):
            self.seen += 1

    notes = Notes()
    for handler in (signal.SIG_IGN, notes):
        signal.signal(signal.SIGINT, handler)
        with interrupt_guard() as guard, guard:
            press()
            assert signal.getsignal(signal.SIGINT) is handler
    assert notes.seen == 1


def test_an_error_comes_first():
    with pytest.raises(ValueError, match="the error"):
        block(press, fail)


def test_a_guard_in_the_block_of_another():
    done = []
    with pytest.raises(KeyboardInterrupt):
        block(block, press, lambda: done.append("the rest of the outer block"))
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_guards_that_take_turns():
    """Two trainings side by side."""
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append("mine"))
    with interrupt_guard() as one, interrupt_guard() as other:
        for guard in (one, other) * 2:
            with pytest.raises(KeyboardInterrupt), guard:
                press()
            press()
    press()
    assert seen == ["mine"] * 5


def test_in_another_thread_the_block_just_runs():
    seen = []

    def run():
        with interrupt_guard() as guard, guard:
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
