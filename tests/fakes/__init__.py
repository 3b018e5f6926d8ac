"""Stand-ins for everybody the product talks to, written from the published wires alone.

`openai`, `speechmatics`, `vonage` (with its simulated phones) and `server` (the product as a real
process) each begin with an example; `stage` puts all of them together. They share nothing with the
product, are stricter than the originals, and collect what they object to in `violations`, which
every test asserts to be empty.
"""
