"""Presets: named sets of params, each a whole that starts from the demo's."""
