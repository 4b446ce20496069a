"""A flood of anomalies costs little, and what is too much ends at once and is counted."""

import pytest

from gateway.forward import calls
from gateway.forward.calls import Call, CallBook, CallState, load
from tests.unit.forward.anomalies import anomaly
from tests.unit.forward.servers import http_server
from tests.unit.forward.training import Pipeline, World, hook_of


async def test_a_flood_is_bounded_and_what_is_too_much_is_not_called_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "WAITING_MAX", 2)
    world = World()
    pipeline = Pipeline(world.now_s)
    async with http_server(pipeline.answer) as server:
        world.start(hook_of(server.url))
        world.sender.take([anomaly(f"a{n}") for n in range(4)])
        async with world.running():
            await world.until_ended(4)
            assert world.sender.take([anomaly("a3")]) == []
    assert pipeline.ids == ["a0", "a1"]
    assert [each[1] for each in world.states].count(CallState.EXPIRED) == 2
    assert load(world.connection).totals[CallState.EXPIRED] == 2


async def test_calls_of_open_anomalies_are_bounded_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "CALLS_MAX", 2)
    monkeypatch.setattr(calls, "ALL_CALLS_MAX", 4)
    world = World()
    pipeline = Pipeline(world.now_s)
    async with http_server(pipeline.answer) as server:
        world.start(hook_of(server.url))
        async with world.running():
            for number in range(10):
                made = world.sender.take([anomaly(f"a{number}")])
                await world._store(made, ())
                await world.until(
                    lambda: CallState.WAITING not in {each[1] for each in world.states}
                )
                world.book.unsaved.clear()
            world.sender.take([anomaly("a0")])
            assert len(world.book.calls) == 4
            world.looks.release()
            await world.until(lambda: len(world.states) == 4)
    assert pipeline.ids == ["a0", "a1", "a2", "a3"]
    assert load(world.connection).totals == {CallState.DELIVERED: 4, CallState.EXPIRED: 6}


def test_a_flood_of_anomalies_is_entered_without_reading_the_book_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, looks = World(*(hook_of(f"https://train.example/{n}") for n in range(8))), []
    forget = CallBook.forget

    def waiting(self: CallBook, hook: str | None = None) -> list[Call]:
        raise AssertionError("the book is read for a call")

    def counted(self: CallBook) -> None:
        looks.append(len(self.calls))
        forget(self)

    monkeypatch.setattr(CallBook, "waiting", waiting)
    monkeypatch.setattr(CallBook, "forget", counted)
    assert len(world.sender.take([anomaly(f"a{n}") for n in range(1_500)])) == 12_000
    assert looks == [12_000]
    assert [len(queue) for queue in world.book.queues.values()] == [calls.WAITING_MAX] * 8
