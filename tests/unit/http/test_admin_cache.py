"""Who may end which cached answers."""

from pathlib import Path

import pytest

from admin_house import AdminHouse


@pytest.fixture
async def house(tmp_path: Path) -> AdminHouse:
    return await AdminHouse(tmp_path).furnish()


async def purge(house, asker, body):
    async with house.client(headers=house.auth(*asker)) as client:
        return await client.post("/admin/v1/cache/purge", json=body)


@pytest.mark.parametrize(
    ("asker", "body", "scope"),
    [
        (("red", "admin"), {}, "\n"),
        (("red", "admin"), {"team": "blue"}, "blue\n"),
        (("red", "admin"), {"endpoint": "smollm2"}, "\nsmollm2"),
        (("red", "operator"), {}, "red\n"),
        (("red", "operator"), {"endpoint": "smollm2", "team": "red"}, "red\nsmollm2"),
    ],
)
async def test_a_purge_reaches_as_far_as_its_key(house, asker, body, scope):
    answer = await purge(house, asker, body)

    assert answer.status_code == 200, answer.text
    assert house.purged == {scope: 1}


@pytest.mark.parametrize(
    ("asker", "body", "status"),
    [
        (("red", "operator"), {"team": "blue"}, 404),
        (("red", "developer"), {}, 403),
        (("red", "auditor"), {}, 403),
        (("red", "admin"), {"endpoint": "none"}, 404),
        (("red", "admin"), {"endpont": "smollm2"}, 400),
    ],
)
async def test_other_purges_are_refused_and_end_nothing(house, asker, body, status):
    answer = await purge(house, asker, body)

    assert answer.status_code == status, answer.text
    assert house.purged == {}
