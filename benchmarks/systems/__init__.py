"""What is measured: the product under two servers, a bare relay, and a peer."""
