"""No job opens a file of the results that its rule does not declare: observed from outside, in complete workflows."""

import opened_files


def test_in_the_demonstration(demo):
    seen = opened_files.undeclared(demo, "config/demo.yaml", "results/demo")
    assert {rule: names for rule, names in seen.items() if names} == {}
    assert len(seen) >= 17, sorted(seen)
