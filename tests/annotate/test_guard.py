from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from profilemate.annotate.emit import Emitter
from profilemate.annotate.faults import shield
from profilemate.annotate.hook import Original
from profilemate.annotate.wrapping import compile_wrapper, observe


class Target:
    def plain(
        self, a: int, b: int = 2, /, c: int = 3, *rest: int, d: int, e: int = 5, **more: int
    ) -> Any:
        """Docs."""
        return (a, b, c, rest, d, e, more)

    def keyword(self, a: object, *, b: object = None) -> Any:
        return (a, b)

    def none(self) -> str:
        return "nothing"

    def fails(self, a: int) -> None:
        raise KeyError(a)


def at(method: Any) -> Original:
    return Original(method, "a hook", method.__name__)


@pytest.fixture
def emitter() -> Emitter:
    return Emitter(lambda: ([], "no sink"))


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("plain", (1,), {"d": 4}),
        ("plain", (1, 7, 8, 9, 10), {"d": 4, "e": 6, "f": 7}),
        ("keyword", (1,), {}),
        ("keyword", (), {"a": 1, "b": 2}),
        ("none", (), {}),
    ],
)
def test_a_wrapper_hands_on_and_returns_what_it_got(
    emitter: Emitter, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    calls: list[tuple[Any, ...]] = []
    original = getattr(Target, name)
    wrapper = observe(at(original), emitter, lambda *call: calls.append(call))
    target = Target()
    expected = original(target, *args, **kwargs)
    assert wrapper(target, *args, **kwargs) == expected
    assert inspect.signature(wrapper) == inspect.signature(original)
    assert inspect.unwrap(wrapper) is original
    assert wrapper.__doc__ == original.__doc__
    ((self, start, end, result, arguments, note),) = calls
    assert self is target
    assert start <= end
    assert result == expected
    assert len(arguments) == len(inspect.signature(original).parameters) - 1
    assert note is None


def test_the_original_is_called_once_whatever_we_do(
    emitter: Emitter, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0

    class Counted:
        def method(self, a: int) -> int:
            nonlocal count
            count += 1
            return a

    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    for _ in range(2):
        assert observe(at(Counted.method), emitter, broken, broken)(Counted(), 5) == 5
    assert count == 2
    assert emitter.faults.count == 4
    said = capsys.readouterr().err
    assert said.count("a fault of profilemate in") == 1
    assert "RuntimeError: ours" in said
    assert "test_guard.py" in said


def test_what_the_original_raises_passes_through(emitter: Emitter) -> None:
    calls: list[object] = []
    wrapper = observe(at(Target.fails), emitter, lambda *call: calls.append(call))
    with pytest.raises(KeyError):
        wrapper(Target(), 1)
    assert calls == []
    assert emitter.faults.count == 0


def test_a_wrong_call_is_still_a_type_error(emitter: Emitter) -> None:
    with pytest.raises(TypeError):
        observe(at(Target.keyword), emitter, lambda *_: None)(Target())


def test_an_inactive_emitter_only_calls_the_original(emitter: Emitter) -> None:
    emitter.active = False
    wrapper = observe(at(Target.keyword), emitter, lambda *_: pytest.fail("called"))
    assert wrapper(Target(), 1, b=2) == (1, 2)


def test_parameters_with_the_names_of_our_own_are_no_trouble(emitter: Emitter) -> None:
    class Nasty:
        def method(self, wrapper: int, after: int, start: int = 1, original: int = 2) -> Any:
            return (wrapper, after, start, original)

    seen: list[Any] = []
    method = observe(at(Nasty.method), emitter, lambda *call: seen.append(call[4]))
    assert method(Nasty(), 5, after=6, original=7) == (5, 6, 1, 7)
    assert seen == [(5, 6, 1, 7)]


@pytest.mark.parametrize("decorate", [lambda method: method, lambda method: decorated(method)])
@pytest.mark.parametrize(
    ("wants", "expected"),
    [(("y",), (2,)), (("z", "not_there", "x"), (3, None, 1)), ((), ()), (None, (1, 2, 3))],
)
def test_wanted_arguments_are_found_by_name_wherever_they_stand(
    emitter: Emitter, decorate: Any, wants: tuple[str, ...] | None, expected: tuple[Any, ...]
) -> None:
    def method(self: object, x: int, y: int, z: int = 3) -> None: ...

    seen: list[Any] = []
    calls: list[tuple[tuple[int, ...], dict[str, int]]]
    calls = [((1, 2), {}), ((1,), {"y": 2}), ((), {"y": 2, "x": 1}), ((1, 2, 3), {})]
    for args, named in calls:
        before = lambda *call: seen.append(call[1])  # noqa: E731
        after = lambda *call: seen.append(call[4])  # noqa: E731
        wrapper = observe(at(decorate(method)), emitter, after, before, wants=wants)
        wrapper(object(), *args, **named)
    assert seen == [expected] * 8


def test_a_shield_keeps_the_name_and_returns_none(emitter: Emitter) -> None:
    def work(x: int) -> float:
        return 1 / x

    safe = shield("work", emitter.faults, work)
    assert safe(2) == 0.5
    assert safe(0) is None
    assert safe.__name__ == "work"


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def test_a_decorated_method_is_handed_what_came_and_read_by_name(emitter: Emitter) -> None:
    # vLLM 0.32 decorates Worker.execute_model with torch.inference_mode and a guard of its own.
    method = decorated(decorated(Target.keyword))
    seen: list[Any] = []
    wrapper = observe(at(method), emitter, lambda *call: seen.append((call[0], call[4])))
    target = Target()
    assert wrapper(target, 1) == (1, None)
    assert wrapper(target, b=3, a=2) == (2, 3)
    assert seen == [(target, (1, None)), (target, (2, 3))]
    first = compile_wrapper(at(method), "return FIRST, CALL")
    assert first(target, 7, b=8) == (7, (7, 8))


def test_a_decorator_that_adds_an_argument_still_works(emitter: Emitter) -> None:
    def adding(function: Any) -> Any:
        @functools.wraps(function)
        def inner(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(self, "added", *args, **kwargs)

        return inner

    class Odd:
        @adding
        def method(self, added: str, a: int) -> Any:
            return (added, a)

    seen: list[Any] = []
    wrapper = observe(at(Odd.method), emitter, lambda *call: seen.append(call[4]), wants=("a",))
    assert wrapper(Odd(), 5) == ("added", 5)
    assert seen == [(None,)]
