"""The library under the stages: a package for each of them, and what they share."""

import rlhf_lib.common.start  # noqa: F401 -- before any library
