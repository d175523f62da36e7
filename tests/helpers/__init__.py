"""What several tests use: places, commands, specs, values made by hand, an oracle of paths."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.unchanged")
