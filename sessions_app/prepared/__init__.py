"""Audio that exists before it is needed: an agent's phrases in its own voice, or neutral ones."""
