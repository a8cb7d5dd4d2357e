"""Studies with networks of their own. They import the core, and never each other."""
