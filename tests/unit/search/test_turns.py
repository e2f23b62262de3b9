from __future__ import annotations

import asyncio

from equipoise.search.turns import ALONE, MEASURING, TRAINING, Keeper


def test_a_name_is_held_by_as_many_as_it_has_places() -> None:
    async def story() -> list[str]:
        keeper = Keeper({TRAINING: 2, MEASURING: 1})
        seen: list[str] = []

        async def hold(name: str, who: str) -> None:
            await keeper.take(name)
            seen.append(f"+{who}")
            await asyncio.sleep(0.01)
            seen.append(f"-{who}")
            await keeper.give(name)

        await asyncio.gather(*(hold(TRAINING, who) for who in "abc"))
        await asyncio.gather(*(hold("layers-0-5", who) for who in "de"))
        return seen

    seen = asyncio.run(story())
    assert seen[:2] == ["+a", "+b"]
    assert seen.index("+c") > min(seen.index("-a"), seen.index("-b"))
    assert seen[-4:] == ["+d", "-d", "+e", "-e"]


def test_one_trial_at_a_time_waits_for_nobody() -> None:
    with ALONE.hold(TRAINING), ALONE.hold(TRAINING):
        pass
