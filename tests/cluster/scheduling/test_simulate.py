from xml.etree import ElementTree

from cluster.scheduling import simulate


def test_a_small_fleet_is_measured_drawn_and_told():
    rows = [simulate.measure(count, seed=1) for count in (10, 100)]
    assert [row.nodes for row in rows] == [10, 100]
    for row in rows:
        assert row.refused == row.moved_elsewhere == row.refused_after_loss == 0
        assert row.gangs >= row.models
        assert row.bound <= row.used <= row.nodes
    assert rows[1].over <= 0.03
    ElementTree.fromstring(simulate.picture(rows))
    assert len(simulate.table(rows).splitlines()) == 3
    assert simulate.result(rows, 1)["rows"][0]["nodes"] == 10


def test_the_same_seed_makes_the_same_models():
    assert simulate.models(50, 3) == simulate.models(50, 3)
    assert simulate.models(50, 3) != simulate.models(50, 4)
