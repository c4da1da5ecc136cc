"""How trials are trained; an engine yields events and knows nothing of tracking."""
