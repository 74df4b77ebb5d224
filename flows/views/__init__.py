"""Tables and listings of what a workspace holds."""
