"""The library under the stages: a package for each of them, and what they share."""
