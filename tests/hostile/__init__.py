"""What a stranger on a socket may try against a running ``automx serve``."""
