"""What the product costs and how late it is, beside a bare relay and a peer, in one run.

`docs/performance.md` tells what is measured and what came out.
"""
