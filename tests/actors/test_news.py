"""Whoever waits for a newer revision hears of it, and whoever knows an older one does not wait."""

import asyncio

from actors.news import News


async def test_who_knows_another_revision_does_not_wait() -> None:
    news = News(7)
    await news.beyond(6, 1e6)
    await news.beyond(8, 1e6)


async def test_all_that_wait_are_told_of_a_change() -> None:
    news = News()
    waiting = [asyncio.ensure_future(news.beyond(0, 1e6)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    news.bump()
    await asyncio.gather(*waiting)
    assert news.revision == 1


async def test_nobody_waits_longer_than_he_said() -> None:
    news = News()
    await news.beyond(0, 0.0)
    assert news.revision == 0
