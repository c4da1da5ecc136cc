"""The networks that are trained: a module each for packaged ones; a user's own by import path."""

from regbench.networks.lookup import PACKAGED, build, find, move, saved, set_mode
