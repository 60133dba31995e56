"""The address plan: stable by name, and never shared."""

import pytest

from tests.cluster.addresses import AddressPlan, choose_plan, preferred_subnet
from tests.cluster.errors import ClusterError


def test_a_name_keeps_its_subnet() -> None:
    assert choose_plan("trainseal", set()) == choose_plan("trainseal", set())


def test_a_taken_subnet_is_passed_over() -> None:
    first = preferred_subnet("a")
    assert choose_plan("a", {first}).subnet == (first + 1) % 256


def test_the_search_wraps_around_to_the_only_free_subnet() -> None:
    free = (preferred_subnet("a") - 1) % 256
    assert choose_plan("a", set(range(256)) - {free}).subnet == free


def test_a_full_machine_is_a_clear_error() -> None:
    with pytest.raises(ClusterError, match="all 256 test subnets"):
        choose_plan("a", range(256))


@pytest.mark.parametrize("subnet", [0, 255])
def test_interface_names_fit_the_kernels_limit(subnet: int) -> None:
    assert len(AddressPlan(subnet).host_interface) <= 15


def test_host_and_node_are_in_the_plans_network() -> None:
    plan = AddressPlan(7)
    assert (plan.host, plan.node, plan.cidr) == ("10.213.7.1", "10.213.7.2", "10.213.7.0/24")
    assert plan.registry != plan.registry_plain
