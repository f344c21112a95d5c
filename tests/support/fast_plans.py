"""Plans of one UNet evaluation an image, for tests that look at a fit and not at detection."""

from diffood.runtime.method.plan import DEFAULT

FAST = DEFAULT.changed({"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0})
WITH_BANK = FAST.changed({"witnesses": (*FAST.witnesses, "margin", "inside")})
