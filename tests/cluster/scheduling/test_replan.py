from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.scheduling.packing import plan
from cluster.scheduling.plan import Plan
from cluster.scheduling.replan import replan
from cluster.scheduling.simulate import fleet, models
from tests.cluster.scheduling import fleets
from tests.cluster.scheduling.test_packing import machines, model


@settings(max_examples=100, deadline=None)
@given(fleets.nodes(5), fleets.needs(4), st.integers(0, 1), st.data())
def test_a_lost_node_moves_only_what_stood_on_it(nodes, needs, spare, data):
    before = plan(nodes, needs, spare)
    assume(before.used)
    lost = data.draw(st.sampled_from(sorted(before.used)))
    left = tuple(node for node in nodes if node.name != lost)
    after = replan(before, left, needs, spare)
    fleets.check(after, left, needs)
    for key, gang in before.placed.items():
        if all(seat.node != lost for seat in gang.seats):
            assert after.placed[key] == gang
    # The same without knowing what the plan was made of: every gang is looked at again.
    again = replan(replace(before, nodes={}, needs={}), left, needs, spare)
    assert set(again.placed) == set(after.placed)
    fleets.check(again, left, needs)


@settings(max_examples=60, deadline=None)
@given(fleets.nodes(4), fleets.needs(3), fleets.nodes(4), fleets.needs(3))
def test_whatever_changes_the_new_plan_keeps_to_the_machines(nodes, needs, other_nodes, other_needs):
    after = replan(plan(nodes, needs), other_nodes, other_needs)
    fleets.check(after, other_nodes, other_needs)


@settings(max_examples=60, deadline=None)
@given(fleets.nodes(5), fleets.needs(4))
def test_nothing_moves_where_nothing_changed(nodes, needs):
    before = plan(nodes, needs)
    assert replan(before, nodes, needs).placed == before.placed


def test_any_single_node_may_be_lost_where_one_of_its_type_is_spare():
    nodes, needs = fleet(30), models(55, 4)
    before = plan(nodes, needs, spare=1)
    assert not before.refused
    assert not before.notes
    for lost in sorted(before.used):
        after = replan(before, [node for node in nodes if node.name != lost], needs, spare=1)
        assert not after.refused


def test_what_is_no_longer_wanted_goes_and_the_rest_stays():
    nodes, needs = machines(2), [model("a", degree=4, replicas=2), model("b", degree=2)]
    before = plan(nodes, needs)
    after = replan(before, nodes, [replace(needs[0], replicas=1)])
    assert after.placed == {("a", 0): before.placed["a", 0]}


def test_a_changed_model_is_placed_anew():
    nodes, need = machines(1), model("a", degree=4)
    after = replan(plan(nodes, [need]), nodes, [replace(need, degree=8)])
    assert after.placed["a", 0].ask.shards == 8


def test_running_gangs_are_not_moved_for_another_but_the_refusal_says_which_would_help():
    nodes = machines(2)
    small = [model("a", degree=4), model("b", degree=4)]
    split = plan(nodes[:1], small[:1]).placed | {
        key: replace(gang, seats=(replace(gang.seats[0], node="n1"),))
        for key, gang in plan(nodes[:1], small[1:]).placed.items()
    }
    after = replan(Plan(split), nodes, [*small, model("large", 400, degree=8)])
    assert after.placed == split
    assert len(after.refused) == 1
    assert not after.refused[0].proven
    assert after.refused[0].remedies[0] == "move a/0 from n0 to n1"
    assert plan(nodes, [*small, model("large", 400, degree=8)]).refused == ()
