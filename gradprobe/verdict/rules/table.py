"""The rules, in the order in which they are listed: the verdict follows from their findings."""

from __future__ import annotations

from gradprobe.errors import suggestion
from gradprobe.spec.network import CodeSpec, NetworkSpec
from gradprobe.verdict.rules import check, finite, lost, notes, reach
from gradprobe.verdict.rules.rule import Rule

RULES: tuple[Rule, ...] = (*reach.RULES, *lost.RULES, *finite.RULES, *notes.RULES, *check.RULES)
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
