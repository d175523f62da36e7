"""The rules, in the order in which they are listed: the verdict follows from their findings."""

from __future__ import annotations

from gradprobe.errors import suggestion
from gradprobe.spec.network import CodeSpec, NetworkSpec
from gradprobe.verdict.rules import check, data, finite, lost, notes, reach, structure
from gradprobe.verdict.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    *reach.RULES,
    *lost.RULES,
    *finite.RULES,
    *notes.RULES,
    *check.RULES,
    *data.RULES,
    *structure.RULES,
)

# Causes, the most specific first: of two findings of one severity the earlier is shown first.
RANKING = (
    "GP301 GP708 GP202 GP206 GP207 GP208 GP209 GP713 GP718 GP719 GP701 GP715 GP615 GP716 GP601 "
    "GP610 GP706 GP711 GP702 GP717 GP611 GP612 GP613 GP703 GP705 GP704 GP707 GP602 GP609 GP710 "
    "GP606 GP607 GP608 GP709 GP714 GP614 GP605 GP712 GP604 GP603"
).split()

# What these find is the effect of any cause that stands in the ranking behind GP202.
EFFECTS = ("GP101", "GP102", "GP103", "GP104", "GP106", "GP201", "GP603", "GP604", "GP605")
# What stands behind the trunk changes nothing of how a gradient fares in it. Nor does a dropout:
# what it keeps it enlarges, so that the mean size stays.
_NOT_INSIDE = "GP611 GP612 GP613 GP614 GP701 GP702 GP703 GP704 GP711 GP712 GP716 GP717"
NOT_INSIDE = tuple(_NOT_INSIDE.split())
INSIDE = ("GP101", "GP102", "GP103", "GP104")
BY_CODE = {rule.code: rule for rule in RULES}
BY_NAME = {rule.name: rule for rule in RULES}

# What a spec may call a rule that it wants ignored.
RULE_WORDS = tuple(
    word
    for rule in RULES
    if rule.find or rule.weigh or rule.tried or rule.among
    for word in (rule.code, rule.name)
)


def check_ignores(spec: NetworkSpec | CodeSpec) -> None:
    """Refuse a spec whose ``ignore`` names a rule that there is not.

    Raises:
        InputError: at the word, with the nearest rule.
    """
    for ignore in spec.check.ignore:
        if ignore.rule not in RULE_WORDS:
            hint = suggestion(ignore.rule, RULE_WORDS) or "gradprobe rules lists them"
            raise spec.error(f"ignore: no rule '{ignore.rule}'", ignore.rule_place, hint)
