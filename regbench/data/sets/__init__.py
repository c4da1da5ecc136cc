"""The data sets: a module each, found by being here."""
